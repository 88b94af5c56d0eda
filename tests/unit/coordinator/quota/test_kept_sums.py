"""Sums kept beside the rows are what the rows give, whatever is done; and who counts differently stays out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, select

from agent.base.ids import new_id
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations import transfer_volume
from coordinator.quota import guard, limits
from coordinator.quota.errors import GigabytesLimit, TypeClosed
from coordinator.quota.settings import QuotaSettings
from coordinator.quota.usage import usage, used
from coordinator.state import snapshots, types, volumes
from coordinator.state import usage as counting
from coordinator.state.database import Database
from coordinator.state.tables.volumes import volumes as table
from coordinator.state.transition import enter, move
from coordinator.state.usage import RULES, Rules
from tests.support import databases

KEYS = KeyStore(Kek.generate())
STEPS = ("create", "snapshot", "extend", "extended", "failed", "retype", "transfer", "temporary", "delete", "unsnap")


def opened(path: Path, **rules: bool) -> Database:
    database = databases.fresh(path)
    database.engine.update_execution_options(**{RULES: Rules(**{"kept": True, **rules})})
    return database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = opened(tmp_path / "state.db")
    yield database
    database.close()


def a_volume(conn: Connection, size: int = 1, type_id: str | None = None, **more: Any) -> Any:
    values = {"id": new_id(), "project_id": "p", "user_id": "u", "size": size, "volume_type_id": type_id, **more}
    return move(conn, "volume", enter(conn, "volume", "create", **values).id, "created")


def a_snapshot(conn: Connection, volume: Any) -> Any:
    values = {"volume_id": volume.id, "volume_type_id": volume.volume_type_id, "volume_size": volume.size}
    made = enter(conn, "snapshot", "create", id=new_id(), project_id=volume.project_id, user_id="u", **values)
    return move(conn, "snapshot", made.id, "created")


class Site:
    """Does steps by the functions that the service itself uses."""

    def __init__(self, conn: Connection, type_ids: list[str | None]) -> None:
        self.conn, self.types = conn, type_ids

    def step(self, name: str, which: int, number: int) -> None:
        if name in {"create", "temporary"}:
            a_volume(self.conn, number, self.types[which % 3], use_quota=name == "create")
            return
        rows = self.conn.execute(select(table).where(~table.c.deleted).order_by(table.c.created_at, table.c.id)).all()
        if rows:
            getattr(self, name)(rows[which % len(rows)], number)

    def snapshot(self, row: Any, _number: int) -> None:
        a_snapshot(self.conn, row)

    def unsnap(self, row: Any, _number: int) -> None:
        for taken in snapshots.of_volume(self.conn, row.id)[:1]:
            move(self.conn, "snapshot", taken.id, "delete")
            move(self.conn, "snapshot", taken.id, "deleted")

    def extend(self, row: Any, number: int) -> None:
        if row.status == "available":
            move(self.conn, "volume", row.id, "extend", reserved_size=number)

    def extended(self, row: Any, _number: int) -> None:
        if row.status == "extending":
            grown = row.size + row.reserved_size
            move(self.conn, "volume", row.id, "extended", size=grown, reserved_size=0)

    def failed(self, row: Any, _number: int) -> None:
        if row.status == "extending":
            move(self.conn, "volume", row.id, "extend_failed", reserved_size=0)
            move(self.conn, "volume", row.id, "repaired")

    def retype(self, row: Any, number: int) -> None:
        if row.status == "available":
            move(self.conn, "volume", row.id, "retype", volume_type_id=self.types[number % 3])

    def transfer(self, row: Any, number: int) -> None:
        if row.status != "available":
            return
        offer, key = transfer_volume.offer(self.conn, row, None, no_snapshots=number % 2 == 0, encrypted=True)
        taker = transfer_volume.Taker("q" if row.project_id == "p" else "p", "u")
        limits.put(self.conn, taker.project_id, {"volumes": -1, "gigabytes": -1, "snapshots": -1})
        transfer_volume.take(self.conn, offer, key, taker, KEYS)

    def delete(self, row: Any, _number: int) -> None:
        if row.status == "available" and not snapshots.of_volume(self.conn, row.id):
            move(self.conn, "volume", row.id, "delete")
            move(self.conn, "volume", row.id, "deleted")


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5), st.integers(1, 9)), max_size=30))
def test_kept_is_what_is_counted(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]) -> None:
    database = opened(tmp_path_factory.mktemp("db") / "state.db")
    try:

        def run(conn: Connection) -> None:
            made = [types.create(conn, name, None).id for name in ("gold", "silver")]
            site = Site(conn, [None, *made])
            for step in steps:
                site.step(*step)
                for project in ("p", "q"):
                    kept = {key: value for key, value in counting.by_type(conn, project).items() if any(value)}
                    assert kept == counting.counted(conn, project), step
            assert counting.differences(conn) == []

        database.write_now(run)
    finally:
        database.close()


def test_a_write_that_fails_keeps_nothing(db: Database) -> None:
    def fails(conn: Connection) -> None:
        a_volume(conn, 5)
        raise KeyError

    with pytest.raises(KeyError):
        db.write_now(fails)
    assert db.read_now(lambda conn: used(conn, "p"))["volumes"] == 0


def test_what_an_extend_needs_is_reserved_and_limits_hold(db: Database) -> None:
    row = db.write_now(lambda conn: a_volume(conn, 1))
    db.write_now(lambda conn: move(conn, "volume", row.id, "extend", reserved_size=2))
    found = db.read_now(lambda conn: usage(conn, "p"))
    assert (found.in_use["gigabytes"], found.reserved) == (1, {"gigabytes": 2})
    db.write_now(lambda conn: limits.put(conn, "p", {"gigabytes": 3}))
    with pytest.raises(GigabytesLimit):
        db.write_now(lambda conn: limits.check(conn, "p", None, volumes=1, gigabytes=1))


def test_snapshots_take_no_space_where_the_site_says_so(tmp_path: Path) -> None:
    for kept in (True, False):
        database = opened(tmp_path / f"{kept}.db", kept=kept, snapshots_take_space=False)
        database.write_now(lambda conn: a_snapshot(conn, a_volume(conn, 4)))
        assert database.read_now(lambda conn: used(conn, "p")) == {"volumes": 1, "gigabytes": 4, "snapshots": 1}
        database.write_now(lambda conn: limits.put(conn, "p", {"gigabytes": 4}))
        database.write_now(lambda conn: limits.check(conn, "p", None, snapshots=1, snapshot_gigabytes=4))
        database.close()


def test_wrong_sums_are_found_and_renewed(db: Database) -> None:
    row = db.write_now(lambda conn: a_volume(conn, 2))
    db.write_now(counting.forget)
    ((key, kept, there),) = db.write_now(counting.differences)
    assert (key, kept.volumes, there.gigabytes) == (("p", ""), 0, 2)
    db.write_now(counting.recount)
    assert db.write_now(counting.differences) == []
    db.write_now(lambda conn: volumes.set_values(conn, row.id, size=3))
    assert db.read_now(lambda conn: used(conn, "p"))["gigabytes"] == 3


def test_who_counts_differently_does_not_start(db: Database) -> None:
    stored, without = QuotaSettings(driver="stored"), QuotaSettings(no_snapshot_gb_quota=True)
    db.write_now(lambda conn: guard.check(conn, QuotaSettings(driver="dynamic")))
    db.write_now(lambda conn: a_volume(conn, 2))
    for wanted, word in ((stored, "quota.driver is stored"), (without, "quota.no_snapshot_gb_quota is true")):
        with pytest.raises(guard.RulesDiffer, match=word):
            db.write_now(lambda conn, wanted=wanted: guard.check(conn, wanted))
    db.write_now(counting.forget)
    assert db.write_now(lambda conn: guard.change(conn, stored)) == ["quota.driver: dynamic -> stored"]
    assert db.write_now(counting.differences) == []
    db.write_now(lambda conn: guard.check(conn, stored))
    assert db.write_now(lambda conn: guard.change(conn, stored)) == []


def test_a_new_site_keeps_sums_where_writers_do_not_wait_for_each_other(db: Database) -> None:
    """On SQLite there is one writer anyway."""
    found = db.write_now(lambda conn: guard.check(conn, QuotaSettings()))
    assert found.driver == ("stored" if db.alone else "dynamic")
    db.write_now(lambda conn: a_volume(conn, 2))
    assert db.write_now(lambda conn: guard.check(conn, QuotaSettings())) == found
    other = QuotaSettings(driver="dynamic" if db.alone else "stored")
    with pytest.raises(guard.RulesDiffer):
        db.write_now(lambda conn: guard.check(conn, other))
    assert db.write_now(lambda conn: guard.change(conn, QuotaSettings())) == []


def test_kept_sums_are_told_without_a_look_at_volumes(db: Database) -> None:
    """What `limits` and a quota with its usage ask: a few rows, however many volumes there are."""
    db.write_now(lambda conn: a_snapshot(conn, a_volume(conn, 2)))
    asked: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda _conn, _cursor, statement, *_rest: asked.append(statement))
    found = db.read_now(lambda conn: (limits.limits(conn, "p"), usage(conn, "p"), used(conn, "p")))
    assert found[2] == {"volumes": 1, "gigabytes": 4, "snapshots": 1}
    assert any("FROM quota_usages" in " ".join(statement.split()) for statement in asked)
    wrong = [statement for statement in asked if "FROM volumes" in statement or "FROM snapshots" in statement]
    assert wrong == []


def test_a_site_from_before_counts_on_as_it_did(db: Database) -> None:
    db.write_now(lambda conn: a_volume(conn, 2))
    assert db.write_now(lambda conn: guard.check(conn, QuotaSettings())).driver == "dynamic"


def test_limits_go_with_the_name_of_a_type_and_end_with_it(db: Database) -> None:
    gold = db.write_now(lambda conn: types.create(conn, "gold", None))
    db.write_now(lambda conn: limits.put(conn, "p", {"volumes_gold": 1}))
    db.write_now(lambda conn: types.change(conn, gold.id, name="golden"))
    assert db.read_now(lambda conn: limits.limits(conn, "p"))["volumes_golden"] == 1
    db.write_now(lambda conn: types.remove(conn, gold.id))
    db.write_now(lambda conn: types.create(conn, "golden", None))
    assert db.read_now(lambda conn: limits.limits(conn, "p"))["volumes_golden"] == -1


def test_a_type_that_the_project_can_not_see_any_more(db: Database) -> None:
    gold = db.write_now(lambda conn: types.create(conn, "gold", None))
    db.write_now(lambda conn: a_volume(conn, 2, gold.id))
    db.write_now(lambda conn: types.change(conn, gold.id, is_public=False))
    assert db.read_now(lambda conn: limits.limits(conn, "p"))["volumes_gold"] == 0
    assert "volumes_gold" not in db.read_now(lambda conn: limits.limits(conn, "q"))
    for more in ({"volumes": 1}, {"gigabytes": 1}):
        with pytest.raises(TypeClosed, match="gold"):
            db.write_now(lambda conn, more=more: limits.check(conn, "p", "gold", **more))
