"""A status moves by one conditional update; refusals say from where, by which rule, and what helps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from agent.base.errors import NotFound
from agent.base.ids import new_id
from coordinator.lifecycle.table import PREVIOUS, SAME
from coordinator.lifecycle.volume import VOLUME
from coordinator.state import volumes
from coordinator.state.database import Database
from coordinator.state.errors import ConditionUnmet, DatabaseBusy, DatabaseUnavailable, SchemaTooNew, TransitionRefused
from coordinator.state.schema import HEAD, check, prepare, version
from coordinator.state.tables.volumes import volumes as table
from coordinator.state.transition import enter, move, move_if
from tests.support import databases


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = databases.fresh(tmp_path / "state.db")
    yield database
    database.close()


def make(conn: Connection, **values: object) -> str:
    given = {"id": new_id(), "project_id": "p", "user_id": "u", "size": 1, **values}
    return str(enter(conn, "volume", "create", **given).id)


def test_a_move_sets_other_columns_in_the_same_statement(db: Database) -> None:
    volume_id = db.write_now(make)
    row = db.write_now(lambda conn: move(conn, "volume", volume_id, "created", device_bytes=7))
    assert (row.status, row.device_bytes) == ("available", 7)


def test_a_refusal_names_status_rule_and_help(db: Database) -> None:
    volume_id = db.write_now(make)
    with pytest.raises(TransitionRefused) as refused:
        db.write_now(lambda conn: move(conn, "volume", volume_id, "delete"))
    assert "has status creating" in str(refused.value)
    assert "available" in str(refused.value)
    assert "Detach it, or" in refused.value.remedy


def test_guards_are_part_of_the_condition(db: Database) -> None:
    volume_id = db.write_now(make)
    db.write_now(lambda conn: move(conn, "volume", volume_id, "created"))
    with pytest.raises(TransitionRefused):
        db.write_now(lambda conn: move(conn, "volume", volume_id, "delete", guards=(table.c.size > 5,)))
    assert db.read_now(lambda conn: volumes.get(conn, volume_id)).status == "available"


def test_a_guard_that_refuses_says_what_depends_on_it(db: Database) -> None:
    """Not that its status is wrong, when its status is one of those it asks for."""
    source = db.write_now(make)
    db.write_now(lambda conn: move(conn, "volume", source, "created"))
    copy = db.write_now(lambda conn: make(conn, source_volid=source))

    def delete(conn: Connection) -> None:
        move(conn, "volume", source, "delete", guards=(volumes.is_no_source(volume_id=source),))

    with pytest.raises(ConditionUnmet) as refused:
        db.write_now(delete)
    assert f"has status available, but delete is refused now: volume {copy} is being made from it." in str(
        refused.value
    )
    assert (refused.value.status, "needs one of" in str(refused.value)) == (400, False)
    db.write_now(lambda conn: move(conn, "volume", copy, "created"))
    db.write_now(delete)


def test_what_is_remembered_comes_back(db: Database) -> None:
    volume_id = db.write_now(make)
    db.write_now(lambda conn: move(conn, "volume", volume_id, "created"))
    db.write_now(lambda conn: move(conn, "volume", volume_id, "extend"))
    row = db.write_now(lambda conn: move(conn, "volume", volume_id, "extend_refused"))
    assert row.status == "available"


def test_deleted_rows_are_gone_for_every_move(db: Database) -> None:
    volume_id = db.write_now(make)
    for event in ("created", "delete", "deleted"):
        db.write_now(lambda conn, event=event: move(conn, "volume", volume_id, event))
    with pytest.raises(NotFound):
        db.write_now(lambda conn: move(conn, "volume", volume_id, "delete"))
    assert db.write_now(lambda conn: move_if(conn, "volume", volume_id, "deleted")) is None


async def test_of_two_at_once_one_wins(db: Database) -> None:
    volume_id = db.write_now(make)
    await db.write(lambda conn: move(conn, "volume", volume_id, "created"))
    results = await asyncio.gather(
        *(db.write(lambda conn: move(conn, "volume", volume_id, "delete")) for _ in range(8)), return_exceptions=True
    )
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert sum(isinstance(result, TransitionRefused) for result in results) == 7


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(VOLUME.events())), max_size=25))
def test_any_sequence_of_events_keeps_to_the_table(db: Database, events: list[str]) -> None:
    """Each example has a volume of its own; a database of its own takes longer than the rest on a busy machine."""
    volume_id = db.write_now(make)
    status, previous = "creating", None
    for event in events:
        rule = VOLUME.rule(event)
        allowed = status in rule.sources and status != "deleted"
        if rule.target == PREVIOUS and previous is None:
            continue
        row = db.write_now(lambda conn, event=event: move_if(conn, "volume", volume_id, event))
        assert (row is not None) == allowed
        if row is not None:
            if rule.remember:
                previous = status
            status = {PREVIOUS: previous, SAME: status}.get(rule.target, rule.target)
            assert row.status == status
            assert status in VOLUME.statuses


def test_a_failing_write_changes_nothing(db: Database) -> None:
    def half(conn: Connection) -> None:
        make(conn)
        raise RuntimeError("in between")

    with pytest.raises(RuntimeError):
        db.write_now(half)
    assert db.read_now(lambda conn: conn.execute(select(table)).all()) == []


@pytest.mark.only("sqlite")
def test_a_second_coordinator_on_the_file_is_refused_naming_the_first(db: Database, tmp_path: Path) -> None:
    with pytest.raises(DatabaseBusy, match=r"in use by process [0-9]+"):
        databases.empty(tmp_path / "state.db")


def test_schema_versions(db: Database) -> None:
    assert db.read_now(version) == HEAD
    db.write_now(prepare)
    with pytest.raises(SchemaTooNew, match="9999"):
        check("9999")


@pytest.mark.only("sqlite")
def test_a_full_disk_is_told_and_changes_nothing(db: Database) -> None:
    pages = db.read_now(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())

    def fill(conn: Connection) -> None:
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        for _ in range(1000):
            make(conn, description="x" * 250)

    with pytest.raises(DatabaseUnavailable, match="full"):
        db.write_now(fill)
    assert db.read_now(lambda conn: conn.execute(select(table)).all()) == []
