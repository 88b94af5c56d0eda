"""No file above 400 lines, no function above 60; tests and benchmarks may be longer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "coordinator/state/migrations/versions"  # written once by alembic from the tables
MAX_FILE = 400
MAX_FUNCTION = 60


def sources() -> Iterator[Path]:
    for top in ("agent", "coordinator", "docs"):
        yield from (path for path in sorted((ROOT / top).rglob("*.py")) if FROZEN not in path.parents)


def test_files_are_short() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert not {name: lines for name, lines in long.items() if lines > MAX_FILE}


def test_functions_are_short() -> None:
    long = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert not long, "\n".join(long)


def test_every_package_says_what_it_holds() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.parent not in (ROOT / "agent", ROOT / "coordinator")
        and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent, f"no docstring at the top: {silent}"
    bare = {path.parent for path in sources()} - {path.parent for path in sources() if path.name == "__init__.py"}
    assert not bare - {ROOT / "docs"}, "no __init__.py"
