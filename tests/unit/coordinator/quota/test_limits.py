"""Limits and usage: counted from rows, by type too, with the sentences that clients know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, event

from agent.base.errors import Invalid
from agent.base.ids import new_id
from coordinator.quota import limits
from coordinator.quota.errors import GigabytesLimit, SnapshotLimit, VolumeLimit, VolumeSizeLimit
from coordinator.quota.given import DEFAULT_CLASS
from coordinator.quota.usage import used
from coordinator.state import types
from coordinator.state.database import Database
from coordinator.state.transition import enter, move
from coordinator.state.usage import _OF_PROJECT
from tests.support import databases


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = databases.fresh(tmp_path / "state.db")
    yield database
    database.close()


def volume(conn: Connection, size: int = 1, type_id: str | None = None, project: str = "p", **more: object) -> str:
    values = {"id": new_id(), "project_id": project, "user_id": "u", "size": size, "volume_type_id": type_id, **more}
    return str(enter(conn, "volume", "create", **values).id)


def test_shipped_defaults_then_the_class_then_the_project(db: Database) -> None:
    assert db.read_now(lambda conn: limits.limits(conn, "p"))["volumes"] == 10
    db.write_now(lambda conn: limits.put(conn, DEFAULT_CLASS, {"volumes": 20}))
    db.write_now(lambda conn: limits.put(conn, "p", {"volumes": 30}))
    assert db.read_now(lambda conn: limits.limits(conn, "p"))["volumes"] == 30
    assert db.read_now(lambda conn: limits.limits(conn, "other"))["volumes"] == 20
    db.write_now(lambda conn: limits.reset(conn, "p"))
    assert db.read_now(lambda conn: limits.limits(conn, "p"))["volumes"] == 20


def test_unknown_resources_and_numbers_are_refused(db: Database) -> None:
    with pytest.raises(Invalid, match="Bad key"):
        db.write_now(lambda conn: limits.put(conn, "p", {"cows": 1}))
    with pytest.raises(Invalid, match="-1 or more"):
        db.write_now(lambda conn: limits.put(conn, "p", {"volumes": -2}))


def test_per_type_limits(db: Database) -> None:
    gold = db.write_now(lambda conn: types.create(conn, "gold", None))
    db.write_now(lambda conn: limits.put(conn, "p", {"volumes_gold": 1, "gigabytes_gold": 5}))
    db.write_now(lambda conn: volume(conn, 4, gold.id))
    with pytest.raises(VolumeLimit, match="volumes_gold"):
        db.read_now(lambda conn: limits.check(conn, "p", "gold", volumes=1, gigabytes=1))
    with pytest.raises(GigabytesLimit, match="gigabytes_gold"):
        db.read_now(lambda conn: limits.check(conn, "p", "gold", gigabytes=2))
    db.read_now(lambda conn: limits.check(conn, "p", "silver", volumes=1, gigabytes=2))


def test_size_of_one_volume_and_number_of_snapshots(db: Database) -> None:
    db.write_now(lambda conn: limits.put(conn, "p", {"per_volume_gigabytes": 5, "snapshots": 0}))
    with pytest.raises(VolumeSizeLimit, match="6G is larger than maximum allowed 5G"):
        db.read_now(lambda conn: limits.check(conn, "p", None, volumes=1, gigabytes=6, volume_size=6))
    with pytest.raises(SnapshotLimit):
        db.read_now(lambda conn: limits.check(conn, "p", None, snapshots=1))


def test_what_is_unlimited_stays_so(db: Database) -> None:
    db.write_now(lambda conn: limits.put(conn, "p", {"volumes": -1, "gigabytes": -1}))
    db.read_now(lambda conn: limits.check(conn, "p", None, volumes=10**6, gigabytes=10**9))


def test_temporary_volumes_and_other_projects_do_not_count(db: Database) -> None:
    db.write_now(lambda conn: volume(conn, 3, use_quota=False))
    db.write_now(lambda conn: volume(conn, 3, project="q"))
    assert db.read_now(lambda conn: used(conn, "p")) == {"volumes": 0, "gigabytes": 0, "snapshots": 0}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.booleans(), st.booleans()), max_size=12))
def test_usage_is_the_sum_of_rows(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[int, int, bool, bool]]
) -> None:
    database = databases.fresh(tmp_path_factory.mktemp("db") / "state.db")
    try:
        gold = database.write_now(lambda conn: types.create(conn, "gold", None))
        count = size_sum = gold_sum = 0
        for size, reserved, typed, deleted in wanted:

            def one(conn: Connection, size=size, reserved=reserved, typed=typed, deleted=deleted) -> None:
                made = volume(conn, size, gold.id if typed else None, reserved_size=reserved)
                if deleted:
                    for event in ("created", "delete", "deleted"):
                        move(conn, "volume", made, event)

            database.write_now(one)
            if not deleted:
                count += 1
                size_sum += size + reserved
                gold_sum += (size + reserved) * typed
        usage = database.read_now(lambda conn: used(conn, "p"))
        assert (usage["volumes"], usage["gigabytes"], usage.get("gigabytes_gold", 0)) == (count, size_sum, gold_sum)
    finally:
        database.close()


@pytest.mark.only("sqlite")
def test_usage_reads_an_index_and_no_row(db: Database) -> None:
    def plan(conn: Connection) -> list[str]:
        literal = {"literal_binds": True}
        asked = [query.params(project="p").compile(conn, compile_kwargs=literal) for query in _OF_PROJECT]
        return [" ".join(str(row[3]) for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")) for text in asked]

    assert db.read_now(plan) == [
        f"SEARCH {table} USING COVERING INDEX ix_{table}_live_quota (project_id=?)"
        for table in ("volumes", "snapshots")
    ]


def test_nothing_is_counted_where_nothing_is_limited(db: Database) -> None:
    db.write_now(lambda conn: limits.put(conn, "p", {"volumes": -1, "gigabytes": -1}))
    asked: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda _conn, _cursor, statement, *_rest: asked.append(statement))
    db.write_now(lambda conn: limits.check(conn, "p", None, volumes=1, gigabytes=1))
    assert not any("count(" in statement for statement in asked)
