"""Lists of volumes, snapshots and attachments use their partial indexes: a page costs the same in a long list."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, update

from agent.base.ids import new_id
from coordinator.quota.usage import used
from coordinator.state import operations, snapshot_lists, volume_lists
from coordinator.state import volumes as state_volumes
from coordinator.state.database import Database
from coordinator.state.paging import Page
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volume_metadata, volumes
from tests.support import databases

START = datetime.datetime(2026, 1, 1)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = databases.fresh(tmp_path / "state.db")
    db.write_now(fill)
    yield db
    db.close()


def fill(conn: Connection) -> None:
    ids = [new_id() for _ in range(400)]
    for number, volume_id in enumerate(ids):
        common = {
            "project_id": f"p{number % 2}",
            "user_id": "u",
            "created_at": START + datetime.timedelta(seconds=number // 3),
        }
        conn.execute(insert(volumes).values(id=volume_id, size=1, status="available", name=f"v{number}", **common))
        conn.execute(insert(volume_metadata).values(volume_id=volume_id, key="n", value=str(number)))
        own = {"volume_id": volume_id, **common}
        conn.execute(insert(snapshots).values(id=new_id(), volume_size=1, status="available", **own))
        own.pop("user_id")
        conn.execute(insert(attachments).values(id=new_id(), owner="external", attach_status="reserved", **own))
    conn.exec_driver_sql("ANALYZE")


class Plans:
    """Every SELECT that runs, with SQLite's plan for it."""

    def __init__(self, engine: Engine) -> None:
        self.seen: list[str] = []
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _conn: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE")):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            self.seen.append(" | ".join(str(row[3]) for row in cursor.fetchall()))


LISTS = {
    "ix_volumes_live_project": (volume_lists.listing, "p1"),
    "ix_volumes_live_all": (volume_lists.listing, None),
    "ix_snapshots_live_project": (snapshot_lists.snapshot_page, "p1"),
    "ix_attachments_live_project": (snapshot_lists.attachment_page, "p1"),
}


@pytest.mark.parametrize("index", LISTS)
@pytest.mark.only("sqlite")
def test_pages_walk_an_index(db: Database, index: str) -> None:
    listing, project = LISTS[index]
    first = db.read_now(lambda conn: listing(conn, project, [], Page(limit=10)))
    plans = Plans(db.engine)
    second = db.read_now(lambda conn: listing(conn, project, [], Page(limit=10, marker=first[-1].id)))
    assert not {row.id for row in first} & {row.id for row in second}
    assert [row.created_at for row in [*first, *second]] == sorted(
        (row.created_at for row in [*first, *second]), reverse=True
    )
    plan = plans.seen[-1]
    assert index in plan, plan
    assert "(created_at,id)<(?,?)" in plan, plan
    assert "TEMP B-TREE" not in plan, plan


@pytest.mark.only("sqlite")
def test_what_runs_all_the_time_reads_no_more_than_it_must(db: Database) -> None:
    plans = Plans(db.engine)
    guards = (
        state_volumes.has_no_snapshots("v"), state_volumes.has_no_attachments("v"),
        state_volumes.is_no_source(volume_id="v"), state_volumes.is_no_source(snapshot_id="s"),
    )  # fmt: skip

    def work(conn: Connection) -> None:
        used(conn, "p1")
        state_volumes.in_pool(conn, "h@b#p")
        conn.execute(update(volumes).where(volumes.c.id == "v", *guards).values(name="x"))
        operations.renew(conn, "me")
        operations.active_of(conn, "v")
        for everything in (True, False):
            operations.claim(
                conn, "me", all_of_them=everything, known=frozenset({("create_volume", 2), ("delete_volume", 1)})
            )

    db.write_now(work)
    wrong = [plan for plan in plans.seen for part in plan.split(" | ") if part.startswith("SCAN")
             and not any(small in part for small in ("ix_operations_active", "SUBQUERY", "CONSTANT ROW"))]  # fmt: skip
    assert not wrong, wrong


def test_all_pages_together_are_the_list(db: Database) -> None:
    seen, marker = [], None
    while True:
        page = Page(limit=7, marker=marker, sorts=(("name", False), ("created_at", True), ("id", False)))
        rows = db.read_now(lambda conn, page=page: volume_lists.listing(conn, "p0", [], page))
        if not rows:
            break
        seen += [row.name for row in rows]
        marker = rows[-1].id
    assert (len(seen), seen) == (200, sorted(seen))


@pytest.mark.only("sqlite")
def test_the_details_of_a_page_are_one_query(db: Database) -> None:
    for limit in (1, 100):
        plans = Plans(db.engine)
        found = db.read_now(lambda conn, limit=limit: volume_lists.details(conn, "p1", [], Page(limit=limit)))
        assert [detail.metadata["n"] for detail in found] == [detail.row.name.removeprefix("v") for detail in found]
        assert len(plans.seen) == 1
        assert plans.seen[0].count("SCAN") == plans.seen[0].count("SCAN anon_") == 1, "only of the page itself"
        assert "TEMP B-TREE" not in plans.seen[0], plans.seen


def test_times_look_as_in_answers_on_every_database(db: Database) -> None:
    (first, *_) = db.read_now(lambda conn: volume_lists.details(conn, "p1", [], Page(limit=3)))
    assert isinstance(first.row.created_at, str)
    assert datetime.datetime.fromisoformat(first.row.created_at) == START + datetime.timedelta(seconds=399 // 3)
    assert first.row.created_at.endswith(".000000")
    assert first.row.updated_at is None
    assert first == db.read_now(lambda conn: volume_lists.detail(conn, first.row.id))
