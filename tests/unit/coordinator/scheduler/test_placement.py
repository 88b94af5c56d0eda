"""Placement: the first rule a pool fails is named, the freest pool is taken, and nothing is promised twice."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update

from agent.wire.results import HostFacts, Pool
from coordinator.scheduler import pool as board_pool
from coordinator.scheduler.board import Board
from coordinator.scheduler.claims import claim, release
from coordinator.scheduler.errors import NoPool
from coordinator.scheduler.placement import Placement, Scheduler
from coordinator.scheduler.request import Request
from coordinator.state import enrolment, fleet
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import pools

GIB = 1 << 30


def host(db: Database, name: str, total: int = 100, **pool: Any) -> str:
    facts = HostFacts(host=name, boot_id="b", arch="x", kernel="k", version="v", started_at="", clock=0.0)
    values = {"free_bytes": total * GIB, "thin": False, "driver": "file", "allocated_bytes": 0, **pool}
    made = Pool.model_validate({"backend": "files", "name": "files", "total_bytes": total * GIB, **values})

    def enter(conn: Connection) -> None:
        enrolment.put_host(conn, EnrolledHost(name, "127.0.0.1", 1, 2, "0" * 64, utcnow()))
        fleet.ensure_hosts(conn)
        fleet.report(conn, name, facts, [made])

    db.write_now(enter)
    return f"{name}@files#files"


def why(db: Database, request: Request, scheduler: Scheduler | None = None) -> str:
    with pytest.raises(NoPool) as refused:
        put(db, request, scheduler)
    return str(refused.value)


def put(db: Database, request: Request, scheduler: Scheduler | None = None) -> Placement:
    return db.write_now(lambda conn: (scheduler or Scheduler()).place(conn, request))


def test_the_pool_with_most_room_is_taken(db: Database) -> None:
    host(db, "small", 50)
    big = host(db, "big", 100)
    db.write_now(lambda conn: claim(conn, big, 40 * GIB))
    scheduler = Scheduler()
    taken = [put(db, Request(device_bytes=10 * GIB), scheduler).host_id for _ in range(4)]
    assert taken[0] == "big"
    assert taken.count("big") in {2, 3}


def test_hosts_of_a_cluster_take_turns_though_one_read_the_size_of_their_space_later(db: Database) -> None:
    for name, free in (("one", 90), ("two", 89), ("three", 88)):
        host(db, name, free_bytes=free * GIB)
    alone = host(db, "alone", 50)
    together = update(pools).where(pools.c.id != alone)
    db.write_now(lambda conn: conn.execute(together.values(cluster_name="c@files")))
    scheduler, taken = Scheduler(), []
    for _ in range(6):
        db.read_now(lambda conn: scheduler.board.refresh(conn, now=True))
        taken.append(put(db, Request(device_bytes=GIB), scheduler).host_id)
    assert sorted(taken) == ["one", "one", "three", "three", "two", "two"]
    db.write_now(lambda conn: conn.execute(update(pools).where(pools.c.host_id == "two").values(disabled=True)))
    db.read_now(lambda conn: scheduler.board.refresh(conn, now=True))
    assert {put(db, Request(device_bytes=GIB), scheduler).host_id for _ in range(4)} == {"one", "three"}


def test_a_pool_that_was_read_anew_while_it_was_claimed_is_known_as_it_is_now(db: Database) -> None:
    one, board = host(db, "one", 100), Board()
    for number in range(5):
        host(db, f"small{number}", 10)

    def best() -> list[board_pool.Pool]:
        return board.roomiest(lambda pool: pool.refusal is None, thick=False, key="any")

    db.read_now(board.refresh)
    (former,) = best()
    board.took(former, GIB)
    host(db, "one", 50)
    db.read_now(lambda conn: board.refresh(conn, now=True))
    board.gave(former, GIB)
    assert best() == board.only(one)
    assert [pool.room() for pool in best()] == [50 * GIB]


def test_each_pool_is_named_with_the_first_rule_that_it_fails(db: Database) -> None:
    for name in ("off", "away", "tight", "zone", "plain"):
        host(db, name, 10 if name == "tight" else 100)
    db.write_now(lambda conn: fleet.set_enabled(conn, "off", enabled=False, reason="repair"))
    db.write_now(lambda conn: fleet.set_reachable(conn, "away", reachable=False))
    from coordinator.state.tables.fleet import hosts

    db.write_now(lambda conn: conn.execute(update(hosts).where(hosts.c.id == "zone").values(availability_zone="z2")))
    told = why(db, Request(device_bytes=20 * GIB, availability_zone="nova", extra_specs={"color": "red"}))
    assert "off@files#files is disabled (repair)" in told
    assert "away@files#files can not be reached" in told
    assert "zone@files#files is in availability zone z2" in told
    assert "plain@files#files lacks color=red" in told


def test_no_host_is_said_plainly(db: Database) -> None:
    assert "no host is enrolled" in why(db, Request(device_bytes=1))


def test_a_backend_is_chosen_by_its_name(db: Database) -> None:
    host(db, "h1")
    ok = Request(device_bytes=GIB, extra_specs={"volume_backend_name": "files", "capabilities:reflink": "<is> False"})
    assert put(db, ok).backend == "files"
    assert "lacks volume_backend_name=gold" in why(db, Request(GIB, extra_specs={"volume_backend_name": "gold"}))
    assert put(db, Request(GIB, extra_specs={"qos:weight": "7"})).host_id == "h1"


def test_threads_never_promise_more_than_there_is(db: Database) -> None:
    pool = host(db, "h1", 10)
    got: list[bool] = []

    def one() -> None:
        got.append(db.write_now(lambda conn: claim(conn, pool, 3 * GIB)))

    threads = [threading.Thread(target=one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 3


def test_claims_and_releases_come_out_even(db: Database) -> None:
    """All in one database: a busy machine has no time for a hundred."""
    pool = host(db, "h1", 100)

    def promised() -> int:
        return int(db.read_now(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalar_one()))

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=12))
    def even(sizes: list[int]) -> None:
        kept = [size for size in sizes if db.write_now(lambda conn, s=size: claim(conn, pool, s * GIB))]
        assert promised() == sum(kept) * GIB <= 100 * GIB
        for size in kept:
            db.write_now(lambda conn, s=size: release(conn, pool, s * GIB))
        assert promised() == 0

    even()


def test_a_thin_pool_may_promise_more_but_not_without_bound(db: Database) -> None:
    host(db, "thin", 10, thin=True)
    assert put(db, Request(device_bytes=150 * GIB)).host_id == "thin"
    assert "over-committed" in why(db, Request(device_bytes=100 * GIB))
