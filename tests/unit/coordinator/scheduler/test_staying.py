"""Work that stays in its pool is asked by the same filters as what is new, and told which of them refused."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, select

from coordinator.scheduler.claims import claim
from coordinator.scheduler.errors import NoPool
from coordinator.scheduler.filters import FILTERS
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.pool import GIB
from coordinator.scheduler.request import Request
from coordinator.scheduler.settings import SchedulerSettings
from coordinator.state import fleet
from coordinator.state.database import Database
from coordinator.state.tables.fleet import pools
from tests.unit.coordinator.scheduler.test_placement import host

POOL = "a@files#files"


def stay(db: Database, size: int, scheduler: Scheduler | None = None, **more: Any) -> None:
    asked = Request(size * GIB, pool_id=POOL, purpose="extend_volume", **more)
    db.write_now(lambda conn: (scheduler or Scheduler()).claim_there(conn, asked))


def refused(db: Database, size: int, **more: Any) -> str:
    before = promised(db)
    with pytest.raises(NoPool) as error:
        stay(db, size, **more)
    assert promised(db) == before
    return str(error.value)


def promised(db: Database) -> int:
    return int(db.read_now(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalar_one())) // GIB


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"extra_specs": {"media": "hdd"}}, "lacks media=hdd [CapabilitiesFilter]"),
        ({"extra_specs": {"RESKEY:availability_zones": "far"}}, "zone nova [AvailabilityZoneFilter]"),
        ({"volume": {"size": 30}}, "refuses by its filter_function [DriverFilter]"),
    ],
)
def test_the_filter_that_refuses_is_named(db: Database, more: dict[str, Any], told: str) -> None:
    host(db, "a", 100, capabilities={"media": "ssd"}, filter_function="volume.size < 20")
    stay(db, 1, extra_specs={"media": "ssd"}, volume={"size": 10})
    assert f"{POOL} " in refused(db, 1, **more)
    assert told in refused(db, 1, **more)


def test_space_is_claimed_to_the_last_byte(db: Database) -> None:
    host(db, "a", 10)
    stay(db, 9)
    assert "over-committed (9 GiB of 10 GiB promised) [CapacityFilter]" in refused(db, 2)
    stay(db, 1)
    assert promised(db) == 10


def test_a_thick_volume_of_a_pool_that_can_do_both_grows_by_what_is_there(db: Database) -> None:
    host(db, "a", 100, thin=True, thick=True, free_bytes=20 * GIB)
    assert "has 20 GiB free [CapacityFilter]" in refused(db, 30, extra_specs={"provisioning:type": "thick"})
    stay(db, 30)


def test_what_takes_no_space_may_stay_where_too_much_is_promised(db: Database) -> None:
    host(db, "a", 10)
    db.write_now(lambda conn: claim(conn, POOL, 50 * GIB, by=None))
    retype = Request(0, pool_id=POOL, purpose="retype_volume")
    assert db.read_now(lambda conn: Scheduler().unfit(conn, retype)) is None
    assert "CapacityFilter" in refused(db, 1)


def test_a_host_that_takes_nothing_new_lets_grow_what_it_has(db: Database) -> None:
    host(db, "a", 10)
    db.write_now(lambda conn: fleet.set_enabled(conn, "a", enabled=False, reason="full soon"))
    stay(db, 1)
    assert promised(db) == 1


def test_without_the_filter_of_capacity_space_is_nobodys_business(db: Database) -> None:
    """The host has the last word then; what is promised is counted all the same."""
    host(db, "a", 10)
    lax = Scheduler(SchedulerSettings(filters=tuple(set(FILTERS) - {"CapacityFilter"})))
    stay(db, 30, lax)
    db.write_now(lambda conn: lax.place(conn, Request(30 * GIB)))
    db.write_now(lambda conn: lax.place(conn, Request(30 * GIB, pool_id=POOL)))
    assert promised(db) == 90


def test_a_pool_that_is_gone_is_named(db: Database) -> None:
    def ask(conn: Connection) -> None:
        Scheduler().place(conn, Request(GIB, pool_id="b@files#x"))

    host(db, "a")
    with pytest.raises(NoPool, match="b@files#x is not known any more"):
        db.write_now(ask)
