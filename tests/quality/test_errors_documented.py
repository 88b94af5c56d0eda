"""Every error that a person can meet stands in the reference, with what to do about it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "errors.md"


def codes() -> Iterator[tuple[str, str]]:
    """(code, where) of each class that has one, read from the source: also of modules that nothing loads here."""
    for path in sorted([*(ROOT / "agent").rglob("*.py"), *(ROOT / "coordinator").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            told = {
                target.id: part.value.value
                for part in node.body
                if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant)
                for target in part.targets
                if isinstance(target, ast.Name)
            }
            if isinstance(told.get("code"), str) and any(isinstance(base, ast.Name) for base in node.bases):
                yield told["code"], f"{path.relative_to(ROOT)}: {node.name}"


def test_every_error_class_stands_in_the_reference() -> None:
    page = PAGE.read_text()
    found = list(codes())
    assert len(found) > 200
    assert not [where for code, where in found if f"| `{code}` |" not in page]
