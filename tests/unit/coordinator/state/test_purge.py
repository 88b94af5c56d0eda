"""Old rows go in bounded bites, with what belongs to them; what lives, is open or needs attention stays."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update

from agent.base.ids import new_id
from coordinator.server.housekeeping import Housekeeper, kept
from coordinator.server.settings import HousekeepingSection
from coordinator.state import (
    attachments,
    enrolment,
    events,
    identity,
    issues,
    messages,
    operations,
    purge,
    types,
    volumes,
)
from coordinator.state.database import Database
from coordinator.state.enrolment import CertificateRow
from coordinator.state.issues import Issue
from coordinator.state.operations import Operation
from coordinator.state.tables import metadata
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.events import events as event_rows
from coordinator.state.transition import enter, move
from tests.support import databases

KEPT = kept(HousekeepingSection())
DAY = datetime.timedelta(days=1)
OLD = utcnow() - 400 * DAY


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = databases.fresh(tmp_path / "state.db")
    yield database
    database.close()


def count(db: Database, table: str) -> int:
    return int(
        db.read_now(lambda conn: conn.execute(select(func.count()).select_from(metadata.tables[table])).scalar_one())
    )


def age(conn: Connection, table: str, **values: Any) -> None:
    conn.execute(update(metadata.tables[table]).values(**values))


def operation(conn: Connection, state: str) -> None:
    made = Operation(new_id(), "k", 1, "volume", new_id(), "p", "u", "r", {}, {}, "running", 1, "c1")
    operations.add(conn, made)
    events.record(conn, made, "k.start", {})
    conn.execute(update(metadata.tables["operations"]).where(metadata.tables["operations"].c.id == made.id)
                 .values(state=state, finished_at=None if state in operations.ACTIVE else OLD))  # fmt: skip


def dropped(db: Database) -> dict[str, int]:
    found = db.read_now(lambda conn: purge.due(conn, KEPT))
    return db.write_now(lambda conn: purge.drop(conn, KEPT, found))


def test_operations_and_events(db: Database) -> None:
    for state in ("done", "failed", "cancelled", "needs-attention", "running", "undoing"):
        db.write_now(lambda conn, state=state: operation(conn, state))  # type: ignore[misc]
    assert dropped(db) == {"operations": 3}
    assert count(db, "operations") == 3
    db.write_now(lambda conn: age(conn, "events", at=OLD))
    db.write_now(lambda conn: operation(conn, "running"))
    assert dropped(db) == {"events": 6}
    assert count(db, "events") == 1


async def test_events_wait_for_a_receiver_that_is_away_but_not_for_ever(db: Database) -> None:
    limits = kept(HousekeepingSection(), frozenset({"webhook:slow", "webhook:new"}))

    def dropped_for_all() -> dict[str, int]:
        found = db.read_now(lambda conn: purge.due(conn, limits))
        return db.write_now(lambda conn: purge.drop(conn, limits, found))

    for name in ("webhook:slow", "webhook:gone"):
        db.write_now(lambda conn, name=name: events.consumer(conn, name))  # type: ignore[misc]
    for _ in range(4):
        db.write_now(lambda conn: operation(conn, "running"))
    await events.numbered(db)
    db.write_now(lambda conn: events.delivered(conn, "webhook:slow", 0, 1))
    db.write_now(lambda conn: age(conn, "events", at=utcnow() - 31 * DAY))
    assert dropped_for_all() == {"events": 1}, "one was told; nobody is told under a name that is not configured"
    assert dropped_for_all() == {}
    assert [db.read_now(lambda conn, at=at: events.missed(conn, at)) for at in (0, 1, 4)] == [False, False, False]  # type: ignore[misc]
    db.write_now(lambda conn: age(conn, "events", at=utcnow() - 61 * DAY))
    db.write_now(lambda conn: events.delivered(conn, "webhook:slow", 1, 2))
    assert dropped_for_all() == {"events": 3}
    [issue] = db.read_now(lambda conn: conn.execute(select(metadata.tables["issues"])).all())
    assert (issue.code, issue.resource_id) == ("notifications.dropped", "webhook:slow")
    assert "up to 4 were dropped" in issue.sentence
    assert [db.read_now(lambda conn, at=at: events.missed(conn, at)) for at in (0, 1, 4)] == [False, True, False]  # type: ignore[misc]
    db.write_now(lambda conn: operation(conn, "running"))
    await events.numbered(db)
    assert [row.position for row in db.read_now(lambda conn: events.after(conn, 2, None, 10))] == [5]


def test_what_is_young_stays(db: Database) -> None:
    def fill(conn: Connection) -> None:
        operation(conn, "done")
        age(conn, "operations", finished_at=utcnow() - 29 * DAY)
        issues.raise_issue(conn, Issue("c", "host", "h", "s", "r"))
        issues.close(conn, "c", "h")
        issues.raise_issue(conn, Issue("c", "host", "h", "s", "r"))
        identity.revoke_token(conn, "t", utcnow().timestamp() + 10**6, 0.0)
        enrolment.create_token(conn, 60.0)

    db.write_now(fill)
    assert dropped(db) == {}


def test_messages_issues_and_tokens(db: Database) -> None:
    def fill(conn: Connection) -> None:
        from agent.base.errors import Invalid

        running = Operation(new_id(), "k", 1, "volume", new_id(), "p", "u", "r", {}, {}, "running", 1, "c1")
        messages.record(conn, running, Invalid(reason="x"))
        age(conn, "messages", guaranteed_until=OLD)
        issues.raise_issue(conn, Issue("closed", "host", "h", "s", "r"))
        age(conn, "issues", closed_at=OLD)
        issues.raise_issue(conn, Issue("open", "host", "h", "s", "r"))
        identity.revoke_token(conn, "t", 1.0, 0.0)
        enrolment.create_token(conn, 60.0)
        age(conn, "join_tokens", expires_at=OLD)

    db.write_now(fill)
    assert dropped(db) == {"messages": 1, "issues": 1, "revoked tokens": 1, "join tokens": 1}
    assert [row.code for row in db.read_now(issues.listing)] == ["open"]


def test_a_host_keeps_its_last_certificate(db: Database) -> None:
    def row(serial: str, end: datetime.datetime) -> CertificateRow:
        return CertificateRow(serial, "host:h", None, "k", "pem", OLD, end, OLD)

    def fill(conn: Connection) -> None:
        for number in range(3):
            enrolment.add_certificate(conn, row(f"{number}", OLD + number * DAY))

    db.write_now(fill)
    assert dropped(db) == {"certificates": 2}
    last = db.read_now(lambda conn: enrolment.current_certificate(conn, "host:h", "k"))
    assert last is not None
    assert last.serial == "2"


def test_deleted_volumes_go_with_all_that_is_theirs(db: Database) -> None:
    def volume(conn: Connection) -> str:
        row = enter(conn, "volume", "create", id=new_id(), project_id="p", user_id="u", size=1)
        volumes.put_metadata(conn, row.id, {"a": "b"})
        volumes.put_image_metadata(conn, row.id, {"a": "b"})
        attachments.next_generations(conn, row.id, "h", 1)
        enter(conn, "attachment", "reserve", id=new_id(), volume_id=row.id, project_id="p", owner="external")
        enter(conn, "snapshot", "create", id=new_id(), project_id="p", user_id="u", volume_id=row.id, volume_size=1)
        return str(row.id)

    def fill(conn: Connection) -> None:
        volume(conn)
        for table in ("volumes", "snapshots", "attachments"):
            age(conn, table, deleted=True, deleted_at=OLD)
        volume(conn)

    db.write_now(fill)
    assert dropped(db) == {"attachments": 1, "snapshots": 1}
    assert dropped(db) == {"volumes": 1}
    for table in ("volumes", "snapshots", "attachments", "volume_metadata", "volume_image_metadata", "generations"):
        assert count(db, table) == 1
    assert dropped(db) == {}


async def test_many_rows_go_in_small_bites(db: Database) -> None:
    fields = {
        "type": "t",
        "resource_type": "v",
        "resource_id": "i",
        "project_id": "p",
        "request_id": "r",
        "payload": {},
    }
    rows = [{"at": OLD, **fields} for _ in range(3 * purge.BATCH + 1)]
    db.write_now(lambda conn: conn.execute(insert(event_rows), rows) and None)
    assert len(db.read_now(lambda conn: purge.due(conn, KEPT))["events"]) == purge.BATCH
    assert await Housekeeper(db, HousekeepingSection()).purge() == {"events": 3 * purge.BATCH + 1}


def test_what_would_go_is_counted_with_what_waits_for_it(db: Database) -> None:
    """A volume goes after the rows that name it, and a type after its volumes: the plan tells of all of them."""

    def fill(conn: Connection) -> None:
        for user, ended in (("old", OLD), ("late", utcnow()), ("old", OLD)):
            kind = types.create(conn, new_id(), None)
            row = enter(conn, "volume", "create", id=new_id(), project_id="p", user_id="u", size=1,
                        volume_type_id=kind.id)  # fmt: skip
            move(conn, "volume", row.id, "created")
            held = {"volume_id": row.id, "project_id": "p", "user_id": "u", "created_at": OLD, "updated_at": OLD}
            gone = {"deleted": True, "deleted_at": ended}
            taken = {"id": new_id(), "volume_size": 1, "status": "deleted", **held, **gone}
            conn.execute(insert(metadata.tables["snapshots"]).values(**taken))
            if user == "old":
                for table, one in (("volumes", row.id), ("volume_types", kind.id)):
                    rows = metadata.tables[table]
                    conn.execute(update(rows).where(rows.c.id == one).values(deleted=True, deleted_at=OLD))

    db.write_now(fill)
    plan = db.read_now(lambda conn: purge.going(conn, KEPT))
    assert plan == {"snapshots": 2, "volumes": 2, "volume types": 2}
    assert db.read_now(lambda conn: purge.going(conn, KEPT)) == plan
    total: dict[str, int] = {}
    while counts := dropped(db):
        total = {name: total.get(name, 0) + counts.get(name, 0) for name in total | counts}
    assert total == plan


def test_a_row_that_came_back_to_life_stays(db: Database) -> None:
    db.write_now(lambda conn: operation(conn, "done"))
    found = db.read_now(lambda conn: purge.due(conn, KEPT))
    db.write_now(lambda conn: age(conn, "operations", state="undoing", finished_at=None))
    assert db.write_now(lambda conn: purge.drop(conn, KEPT, found)) == {"operations": 0}


def test_rows_in_use_are_never_named(db: Database) -> None:
    def fill(conn: Connection) -> None:
        row = enter(conn, "volume", "create", id=new_id(), project_id="p", user_id="u", size=1)
        move(conn, "volume", row.id, "created")

    db.write_now(fill)
    assert db.read_now(lambda conn: purge.due(conn, KEPT)) == {}
