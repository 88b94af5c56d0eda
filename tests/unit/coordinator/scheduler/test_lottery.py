"""The lottery among pools: chances are in proportion to weights, and all pools stay in the order."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.pool import GIB, Pool
from coordinator.scheduler.request import Request
from coordinator.scheduler.settings import SchedulerSettings
from coordinator.scheduler.weighers import drawn
from tests.support import databases
from tests.unit.coordinator.scheduler.test_placement import host, put
from tests.unit.coordinator.scheduler.test_rules import pool

ASKED = Request(GIB)
BY_ROOM = {"CapacityWeigher": 1.0}


@pytest.fixture(autouse=True)
def database_kind() -> str:
    """What is drawn is no matter of the database."""
    databases._current[0] = "sqlite"
    return "sqlite"


def pools(*free: int, **more: Any) -> list[Pool]:
    """With so many GiB, called by them."""
    found = [pool(total=each, free=each, **more) for each in free]
    for each, size in zip(found, free, strict=True):
        each.id = each.host_id = f"{size}"
    return found


def chi_square(counts: Counter[Any], shares: dict[Any, float]) -> float:
    draws = sum(counts.values())
    return sum((counts[name] - draws * share) ** 2 / (draws * share) for name, share in shares.items())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_chances_are_in_proportion_to_room(seed: int) -> None:
    """At most one in a thousand true lotteries is further off than that; first and second place alike."""
    dice, candidates = random.Random(seed), pools(10, 30, 60)
    orders = [tuple(one.id for one in drawn(candidates, ASKED, BY_ROOM, dice)) for _ in range(4000)]
    assert chi_square(Counter(order[0] for order in orders), {"10": 0.1, "30": 0.3, "60": 0.6}) < 13.82
    chance = {"10": 0.1, "30": 0.3, "60": 0.6}
    both = {(one, two): chance[one] * chance[two] / (1 - chance[one]) for one in chance for two in chance if one != two}
    assert chi_square(Counter(order[:2] for order in orders), both) < 20.52


def test_without_the_lottery_the_roomiest_is_always_taken(tmp_path: Path) -> None:
    db = databases.fresh(tmp_path / "state.db")
    try:
        for name, size in (("a", 10), ("b", 30), ("c", 60)):
            host(db, name, size * 1000)
        best, luck = Scheduler(), Scheduler(SchedulerSettings(choice="lottery", weighers=("CapacityWeigher",)), seed=7)
        assert {put(db, Request(1 << 20), best).host_id for _ in range(200)} == {"c"}
        got = Counter(put(db, Request(1 << 20), luck).host_id for _ in range(1000))
    finally:
        db.close()
    for name, percent in (("a", 10), ("b", 30), ("c", 60)):
        assert got[name] / 10 == pytest.approx(percent, abs=5)


def test_who_weighs_nothing_is_drawn_after_all_others() -> None:
    dice, candidates = random.Random(5), pools(0, 1, 1000, 0)
    for _ in range(500):
        order = [one.id for one in drawn(candidates, ASKED, BY_ROOM, dice)]
        assert sorted(order[:2]) == ["1", "1000"]
        assert order[2:] == ["0", "0"]


def test_where_nobody_weighs_anything_all_have_the_same_chance() -> None:
    dice, candidates = random.Random(6), pools(4, 5, 6, 7)
    kinds: list[dict[str, float]] = [{"GoodnessWeigher": 1.0}, {}, {"CapacityWeigher": 0.0}]
    for weighers in kinds:
        first = Counter(drawn(candidates, ASKED, weighers, dice)[0].id for _ in range(1000))
        assert chi_square(first, dict.fromkeys("4567", 0.25)) < 16.27


def test_fewer_is_better_gives_no_negative_chances() -> None:
    dice, candidates = random.Random(8), pools(10, 10, 10)
    for number, each in enumerate(candidates):
        each.id, each.volumes = f"{number}", number
    first = Counter(drawn(candidates, ASKED, {"VolumeNumberWeigher": -1.0}, dice)[0].id for _ in range(3000))
    assert first["2"] == 0
    assert chi_square(first, {"0": 2 / 3, "1": 1 / 3}) < 10.83


def test_one_seed_gives_one_order_and_ten_thousand_pools_are_drawn_once_each() -> None:
    many = pools(*range(10_000))
    one, same, other = (drawn(many, ASKED, BY_ROOM, random.Random(seed)) for seed in (1, 1, 2))
    assert [each.id for each in one] == [each.id for each in same] != [each.id for each in other]
    assert len({each.id for each in one}) == 10_000
    assert one[-1].id == "0"
