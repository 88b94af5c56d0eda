"""The attachments of a volume are found by the volume, in whatever order a database's indexes were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from agent.base.errors import NotFound
from coordinator.state import volume_lists
from tests.support import databases

INDEXES = ("ix_attachments_live_volume", "ix_attachments_live_status")


@pytest.mark.parametrize("last", INDEXES)
def test_those_of_other_volumes_are_not_read(tmp_path: Path, last: str) -> None:
    db = databases.fresh(tmp_path / "state.db")
    if not db.alone:
        db.close()
        pytest.skip("PostgreSQL knows how many rows each finds")
    seen: list[str] = []

    def note(_conn: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if "attachments" in statement:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            seen.extend(row[3] for row in cursor.fetchall())

    def anew(conn: Any) -> None:
        made = conn.execute(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": last}).scalar_one()
        conn.execute(text(f"DROP INDEX {last}"))
        conn.execute(text(made))

    db.write_now(anew)
    event.listen(db.engine, "before_cursor_execute", note)
    with pytest.raises(NotFound):
        db.read_now(lambda conn: volume_lists.detail(conn, "v"))
    db.close()
    found = [step for step in seen if "attachments" in step]
    assert found
    assert all("ix_attachments_live_volume" in step for step in found), found
