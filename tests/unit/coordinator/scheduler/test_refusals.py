"""Why nothing fits: each host is named once."""

from __future__ import annotations

import pytest

from coordinator.scheduler.refusals import told

FULL = "has 1 GiB left, 3 GiB are needed [CapacityFilter]"


@pytest.fixture(autouse=True)
def database_kind() -> str:
    """No database is asked."""
    return ""


def test_hosts_of_one_pool_are_told_as_they_are() -> None:
    assert told([]) == ""
    assert told([("a", "a@b#c", FULL), ("d", "d@b#c", "can not be reached")]) == (
        f"a@b#c {FULL}; d@b#c can not be reached"
    )


def test_a_host_of_several_pools_is_named_once() -> None:
    assert told([("a", f"a@b#{n}", "is disabled (rest)") for n in range(9)]) == "a (9 pools) is disabled (rest)"
    mixed = [("a", "a@b#1", FULL), ("z", "z@b#1", FULL), ("a", "a@b#2", "can not be reached")]
    assert told(mixed) == f"a@b#1 {FULL}, a@b#2 can not be reached; z@b#1 {FULL}"
    many = told([("a", f"a@b#{n}", f"lacks {n} [CapabilitiesFilter]") for n in range(9)])
    assert many.endswith("a@b#4 lacks 4 [CapabilitiesFilter], and 4 pools more")


def test_of_many_hosts_it_is_said_which_rule_how_many_failed() -> None:
    refused = [(f"h{n:02}", f"h{n:02}@b#c", FULL) for n in range(30)]
    refused += [(f"i{n}", f"i{n}@b#c", "is disabled (maintenance)") for n in range(2)]
    text = told(refused)
    assert text.startswith(f"h00@b#c {FULL}; h01")
    assert text.endswith(f"h19@b#c {FULL}; and 12 more (10 CapacityFilter, 2 is disabled)")
    assert text.count("@") == 20
