"""Schedulers of two coordinators on one PostgreSQL: they keep out of each other's way, and never promise twice."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
from sqlalchemy import Connection, select, text, update

from agent.wire.results import HostFacts, Pool
from coordinator.scheduler.errors import NoPool
from coordinator.scheduler.placement import Placement, Scheduler
from coordinator.scheduler.request import Request
from coordinator.state import enrolment, fleet
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import pools
from tests.support import databases

pytestmark = pytest.mark.only("postgresql")
GIB = 1 << 30
Pair = databases.Pair


def hosts(conn: Connection, sizes: dict[str, int]) -> None:
    """Thick pools of these sizes in GiB, one on each host."""
    for name, size in sizes.items():
        facts = HostFacts(host=name, boot_id="b", arch="x", kernel="k", version="v", started_at="", clock=0.0)
        pool = Pool(
            backend="files", name="files", driver="file", thin=False, thick=True, allocated_bytes=0,
            total_bytes=size * GIB, free_bytes=size * GIB,
        )  # fmt: skip
        enrolment.put_host(conn, EnrolledHost(name, "127.0.0.1", 1, 2, "0" * 64, utcnow()))
        fleet.ensure_hosts(conn)
        fleet.report(conn, name, facts, [pool])


async def promised(db: Database) -> dict[str, int]:
    found = await db.read(lambda conn: conn.execute(select(pools.c.host_id, pools.c.provisioned_bytes)).all())
    return {row.host_id: row.provisioned_bytes // GIB for row in found}


@pytest.mark.parametrize("sizes", [{"only": 60}, {"a": 21, "b": 20, "c": 19}, {f"h{n}": 3 for n in range(20)}])
async def test_many_at_once_fill_the_pools_to_the_last_byte_and_no_further(pair: Pair, sizes: dict[str, int]) -> None:
    await pair[0].write(lambda conn: hosts(conn, sizes))
    schedulers = Scheduler(seed=1), Scheduler(seed=2)
    asked = [
        pair[n % 2].write(lambda conn, n=n: schedulers[n % 2].place(conn, Request(GIB))) for n in range(80)
    ]  # fmt: skip
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    placed = Counter(outcome.host_id for outcome in outcomes if isinstance(outcome, Placement))
    assert sum(isinstance(outcome, NoPool) for outcome in outcomes) == 20, outcomes
    assert placed == sizes == await promised(pair[0])


async def test_a_pool_that_is_being_claimed_is_passed_over(pair: Pair) -> None:
    """Others that are nearly as good are taken meanwhile; one that is much smaller is not."""
    await pair[0].write(lambda conn: hosts(conn, {"best": 100, "good": 98, "small": 20}))
    schedulers, held, go = (Scheduler(), Scheduler()), threading.Event(), threading.Event()

    def holds(conn: Connection) -> str:
        found = schedulers[0].place(conn, Request(GIB)).host_id
        held.set()
        assert go.wait(30)
        return found

    first = asyncio.create_task(pair[0].write(holds))
    assert await asyncio.to_thread(held.wait, 30)
    second = await pair[1].write(lambda conn: schedulers[1].place(conn, Request(GIB)).host_id)
    assert (second, first.done()) == ("good", False)
    go.set()
    assert await first == "best"
    assert await promised(pair[0]) == {"best": 1, "good": 1, "small": 0}


async def test_where_all_are_being_claimed_one_is_waited_for(pair: Pair) -> None:
    await pair[0].write(lambda conn: hosts(conn, {"one": 10, "two": 10}))
    scheduler, held, go = Scheduler(), threading.Event(), threading.Event()

    def holds(conn: Connection) -> None:
        conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # a slow machine needs longer
        conn.execute(update(pools).values(provisioned_bytes=9 * GIB))
        held.set()
        assert go.wait(110)

    first = asyncio.create_task(pair[0].write(holds))
    assert await asyncio.to_thread(held.wait, 100)
    second = asyncio.create_task(pair[1].write(lambda conn: scheduler.place(conn, Request(2 * GIB))))
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(100):
        while not await pair[0].read(lambda conn: conn.execute(waiting).scalar_one()):
            await asyncio.sleep(0.01)
    go.set()
    await first
    with pytest.raises(NoPool, match="over-committed"):
        await second
    assert await promised(pair[0]) == {"one": 9, "two": 9}
