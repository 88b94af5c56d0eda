"""The migrations are one chain, and the schema's version is its end: two that were made side by side are seen."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.state import schema

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
