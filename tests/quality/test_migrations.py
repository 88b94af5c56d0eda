"""The migrations are one chain, and the schema's version is its end: two that were made side by side are seen."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from coordinator.state import schema

_TAKES = re.compile(r"drop_(?!index)|alter_|rename_|batch_alter")
_MOVES_DATA = re.compile(r"\s*(UPDATE|INSERT)\b", re.IGNORECASE)
VERSIONS = Path(__file__).parents[2] / "coordinator/state/migrations/versions"


def test_the_migrations_are_one_chain() -> None:
    found: list[tuple[str, str | None]] = []
    for path in sorted(VERSIONS.glob("v*.py")):
        text = path.read_text()
        revision = re.search(r'^revision = "(\d+)"', text, re.MULTILINE)
        before = re.search(r'^down_revision = (?:"(\d+)"|None)', text, re.MULTILINE)
        assert revision is not None, path
        assert before is not None, path
        assert path.name.startswith(f"v{revision[1]}_"), path
        found.append((revision[1], before[1]))
    numbers = [revision for revision, _ in found]
    assert [before for _, before in found] == [None, *numbers[:-1]]
    assert (schema.HEAD, list(schema.RELEASED)) == (numbers[-1], numbers)


def taking(text: str) -> list[str]:
    """Calls of a migration that the release before could not live with: it may only add."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name = node.func.attr
        if _TAKES.match(name):
            found.append(f"line {node.lineno}: {name}")
        said = node.args[0] if node.args else None
        if name == "execute" and not (isinstance(said, ast.Constant) and _MOVES_DATA.match(str(said.value))):
            found.append(f"line {node.lineno}: {name}")
        if name == "add_column":
            column = ast.unparse(node.args[1])
            if "nullable=False" in column and "server_default" not in column:
                found.append(f"line {node.lineno}: a column that the release before does not fill")
    return found


def test_migrations_only_add() -> None:
    found = {path.name: taken for path in sorted(VERSIONS.glob("v*.py")) if (taken := taking(path.read_text()))}
    assert found == {}


def test_a_migration_that_takes_something_away_is_named() -> None:
    for call in (
        'op.drop_column("volumes", "size")', 'op.drop_table("volumes")', 'op.rename_table("volumes", "disks")',
        'op.alter_column("volumes", "size", new_column_name="gib")', 'op.execute("ALTER TABLE volumes DROP size")',
        'op.batch_alter_table("volumes")', 'op.add_column("volumes", sa.Column("x", sa.Integer(), nullable=False))',
    ):  # fmt: skip
        assert taking(f"def upgrade():\n    {call}\n"), call
    assert taking('op.drop_index("ix")\nop.execute("UPDATE events SET position = seq")') == []
