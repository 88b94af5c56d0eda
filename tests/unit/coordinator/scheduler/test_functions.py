"""Filter and goodness functions of a pool: what they refuse, what they weigh, and what a wrong one does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.scheduler import weighers
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.pool import GIB
from coordinator.scheduler.request import Request
from coordinator.scheduler.settings import SchedulerSettings
from coordinator.scheduler.told import shared
from coordinator.state.database import Database
from tests.unit.coordinator.scheduler.test_placement import host, put, why
from tests.unit.coordinator.scheduler.test_rules import pool


def test_filter_and_goodness_functions(db: Database) -> None:
    host(db, "small", 3000, filter_function="volume.size < 10", goodness_function="50")
    host(db, "large", 3000, filter_function="volume.size >= 10", goodness_function="50")
    scheduler = Scheduler()
    assert {put(db, Request(5 * GIB), scheduler).host_id for _ in range(100)} == {"small"}
    assert {put(db, Request(20 * GIB), scheduler).host_id for _ in range(100)} == {"large"}


def test_goodness_decides_when_it_is_the_weigher(db: Database) -> None:
    host(db, "first", 1000, goodness_function="capabilities.total_volumes < 3 ? 100 : 20")
    host(db, "second", 1000, goodness_function="50")
    host(db, "broken", 5000, goodness_function="1 +")
    host(db, "beyond", 5000, goodness_function="150")
    scheduler = Scheduler(SchedulerSettings(weighers=("GoodnessWeigher",)))
    assert [put(db, Request(GIB), scheduler).host_id for _ in range(5)] == ["first"] * 3 + ["second"] * 2


@pytest.mark.parametrize(("function", "weighs"), [
    ("150", 0), ("-1", 0), ("1 == 1", 100), ("1 == 2", 0), ("7 / 0", 0), ("'much'", 0), ("1 +", 0), ("", 0),
    ("40 + 2", 42), ("(" * 10_000, 0),
])  # fmt: skip
def test_what_a_goodness_function_weighs(function: str, weighs: float) -> None:
    told = shared({"goodness_function": function}, thin=False, thick=True)
    assert weighers.goodness(replace(pool(), told=told), Request(GIB)) == weighs


def test_a_goodness_function_that_is_wrong_is_told_of_once() -> None:
    told = shared({"goodness_function": "1 /"}, thin=False, thick=True)
    one = replace(pool(), told=told, id="once@b#p")
    weighers._warn.cache_clear()
    for _ in range(3):
        weighers.goodness(one, Request(GIB))
    said = weighers._warn.cache_info()
    assert (said.misses, said.hits) == (1, 2)


def test_a_broken_filter_function_refuses(db: Database) -> None:
    host(db, "h1", filter_function="volume.size <")
    assert "has a filter_function that can not be evaluated" in why(db, Request(GIB))


def test_an_expression_sees_each_protocol_of_a_pool_by_itself(db: Database) -> None:
    ways = {"protocols": ("local", "iscsi")}
    host(db, "a", 100, filter_function="capabilities.storage_protocol == 'iscsi'", **ways)
    host(db, "b", 90, filter_function="stats.storage_protocol == 'nvme-tcp'", **ways)
    good = "capabilities.storage_protocol == 'local' ? 90 : 5"
    host(db, "c", 50, goodness_function=good, **ways)
    told = db.read_now(lambda conn: Scheduler().why_not(conn, Request(GIB)))
    assert [reason is None for _, reason in sorted(told.items())] == [True, False, True]
    by_goodness = Scheduler(SchedulerSettings(weighers=("GoodnessWeigher",)))
    assert put(db, Request(GIB), by_goodness).host_id == "c"
