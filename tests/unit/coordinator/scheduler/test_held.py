"""Volumes that one transaction places together: pools are held, and never promised twice, nor left half told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from coordinator.scheduler.claims import release
from coordinator.scheduler.errors import NoPool
from coordinator.scheduler.placement import Placement, Scheduler
from coordinator.scheduler.request import Request
from coordinator.state.database import Database
from coordinator.state.tables.fleet import pools
from tests.support import databases
from tests.unit.coordinator.scheduler.test_two_schedulers import hosts, promised

pytestmark = pytest.mark.only("postgresql")
GIB = 1 << 30
Pair = databases.Pair


def placing(db: Database, scheduler: Scheduler, size: int = 1) -> Any:
    return db.write(lambda conn: scheduler.place(conn, Request(size * GIB)), together="placing")


@pytest.mark.parametrize("sizes", [{"only": 60}, {"a": 21, "b": 20, "c": 19}, {f"h{n}": 3 for n in range(20)}])
async def test_companies_of_two_coordinators_fill_the_pools_and_go_no_further(
    pair: Pair, sizes: dict[str, int]
) -> None:
    await pair[0].write(lambda conn: hosts(conn, sizes))
    schedulers = Scheduler(seed=1), Scheduler(seed=2)
    asked = [placing(pair[n % 2], schedulers[n % 2]) for n in range(80)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    placed = Counter(outcome.host_id for outcome in outcomes if isinstance(outcome, Placement))
    assert sum(isinstance(outcome, NoPool) for outcome in outcomes) == 20, outcomes
    assert placed == sizes == await promised(pair[0])


async def test_a_company_spreads_over_pools_that_are_as_good(pair: Pair) -> None:
    await pair[0].write(lambda conn: hosts(conn, {f"h{n:02}": 100 for n in range(12)}))
    scheduler = Scheduler()
    placed = await asyncio.gather(*(placing(pair[0], scheduler) for _ in range(60)))
    counts = Counter(each.host_id for each in placed)
    assert max(counts.values()) <= 20
    assert counts == {name: count for name, count in (await promised(pair[0])).items() if count}


async def test_what_a_neighbour_gives_back_is_counted_too(pair: Pair) -> None:
    await pair[0].write(lambda conn: hosts(conn, {"only": 20}))
    scheduler = Scheduler()
    await placing(pair[0], scheduler, 12)

    def gives(conn: Connection) -> None:
        release(conn, "only@files#files", 2 * GIB)

    asked: list[Any] = []
    for _ in range(3):
        asked += [placing(pair[0], scheduler), pair[0].write(gives, together="placing")]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(outcome, Placement) for outcome in outcomes) == 3
    assert (await promised(pair[0]))["only"] == 12 + 3 - 6


async def test_the_other_hosts_of_a_cluster_are_promised_the_same(pair: Pair) -> None:
    await pair[0].write(lambda conn: hosts(conn, {"a": 50, "b": 50, "other": 10}))

    def cluster(conn: Connection) -> None:
        conn.execute(update(pools).where(pools.c.host_id.in_(["a", "b"])).values(cluster_name="c@files"))

    await pair[0].write(cluster)
    scheduler = Scheduler()
    placed = await asyncio.gather(*(placing(pair[0], scheduler) for _ in range(20)))
    assert {each.cluster for each in placed} == {"c@files"}
    assert await promised(pair[0]) == {"a": 20, "b": 20, "other": 0}


async def test_a_pool_that_is_gone_when_it_is_held_is_not_claimed(pair: Pair) -> None:
    await pair[0].write(lambda conn: hosts(conn, {"a": 50, "b": 50}))
    scheduler = Scheduler()
    await placing(pair[0], scheduler)
    await pair[1].write(lambda conn: conn.execute(update(pools).where(pools.c.host_id == "a").values(disabled=True)))
    placed = await asyncio.gather(*(placing(pair[0], scheduler) for _ in range(10)))
    assert {each.host_id for each in placed} == {"b"}
    found = await pair[0].read(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalars().all())
    assert sum(found) == 11 * GIB


async def test_hosts_of_a_cluster_do_not_promise_the_same_space_twice(pair: Pair) -> None:
    """Which of them is claimed from makes no difference: neither within one transaction nor by two at once."""
    await pair[0].write(lambda conn: hosts(conn, {"a": 20, "b": 20}))
    await pair[0].write(lambda conn: conn.execute(update(pools).values(cluster_name="c@files")))
    schedulers = Scheduler(seed=1), Scheduler(seed=2)
    asked = [placing(pair[n % 2], schedulers[n % 2]) for n in range(60)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(outcome, Placement) for outcome in outcomes) == 20, outcomes
    assert await promised(pair[0]) == {"a": 20, "b": 20}


async def test_thin_and_thick_volumes_of_one_company_share_what_a_pool_has(pair: Pair) -> None:
    def either(conn: Connection) -> None:
        hosts(conn, {"only": 20})
        conn.execute(update(pools).values(thin=True, reported={"thick": True}, max_over_subscription=1.0))

    await pair[0].write(either)
    scheduler, thick = Scheduler(), {"provisioning:type": "thick"}

    def place(number: int) -> Any:
        request = Request(GIB, extra_specs=thick if number % 2 else {})
        return pair[0].write(lambda conn: scheduler.place(conn, request), together="placing")

    outcomes = await asyncio.gather(*(place(number) for number in range(30)), return_exceptions=True)
    assert sum(isinstance(outcome, Placement) for outcome in outcomes) == 20, outcomes
    assert await promised(pair[0]) == {"only": 20}
