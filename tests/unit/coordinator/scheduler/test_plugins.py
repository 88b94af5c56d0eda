"""Filters of an operator's own, from a package that is installed as such a package is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection

from coordinator.scheduler.errors import BadPlugin, NoPool
from coordinator.scheduler.filters import FILTERS
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.pool import GIB
from coordinator.scheduler.request import Purpose, Request
from coordinator.scheduler.settings import SchedulerSettings
from coordinator.state.database import Database
from coordinator.state.schema import prepare
from tests.unit.coordinator.scheduler.test_placement import host

CODE = """
ASKED = []

class SoldOut:
    def backend_passes(self, backend_state, filter_properties):
        spec = filter_properties["request_spec"]
        ASKED.append((backend_state.host, spec["operation"], filter_properties["size"], backend_state.free_capacity_gb))
        return not (spec["operation"] == "create_volume" and backend_state.capabilities.get("full"))

class Broken:
    def backend_passes(self, backend_state, filter_properties):
        return backend_state.nothing_of_that_name

class Unmade:
    def __init__(self):
        raise OSError("no licence")
"""
POINTS = (
    "[cinder.scheduler.filters]\n"
    + "".join(f"{name} = site_filters:{name}\n" for name in ("SoldOut", "Broken", "Unmade"))
    + "Gone = site_filters:Gone\n"
)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    there = tmp_path / "site-filters"
    info = there / "site_filters-1.0.dist-info"
    info.mkdir(parents=True)
    (there / "site_filters.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: site-filters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(there))
    import site_filters  # type: ignore[import-not-found]

    yield site_filters.ASKED
    sys.modules.pop("site_filters")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database.sqlite(tmp_path / "state.db")
    database.write_now(prepare)
    yield database
    database.close()


def scheduler(*names: str) -> Scheduler:
    return Scheduler(SchedulerSettings(filters=(*FILTERS, *names)))


def test_a_pool_that_is_sold_out_takes_nothing_new_but_lets_grow(db: Database, asked: list[Any]) -> None:
    full, _ = host(db, "a", 100, capabilities={"full": True}), host(db, "b", 50)
    with_it = scheduler("SoldOut")
    for _ in range(3):
        assert db.write_now(lambda conn: with_it.place(conn, Request(2 * GIB))).host_id == "b"
    assert sorted(asked)[:2] == [(full, "create_volume", 2, 100.0)] * 2
    with pytest.raises(NoPool, match=r"refuses by a filter of the operator \[SoldOut\]"):
        db.write_now(lambda conn: with_it.place(conn, Request(2 * GIB, pool_id=full)))
    asked.clear()
    purposes: tuple[Purpose, ...] = ("extend_volume", "create_snapshot", "retype_volume", "manage_existing")

    def stay(conn: Connection) -> None:
        for purpose in purposes:
            assert with_it.unfit(conn, Request(GIB, pool_id=full, purpose=purpose)) is None

    db.write_now(stay)
    assert [(pool, purpose) for pool, purpose, _, _ in asked] == [(full, purpose) for purpose in purposes]


def test_one_that_raises_refuses_and_the_scheduler_goes_on(db: Database, asked: list[Any]) -> None:
    host(db, "a", 100)
    with pytest.raises(NoPool, match=r"the filter raised AttributeError \[Broken\]"):
        db.write_now(lambda conn: scheduler("Broken").place(conn, Request(GIB)))
    assert db.write_now(lambda conn: scheduler("SoldOut").place(conn, Request(GIB))).host_id == "a"


def test_what_can_not_be_loaded_is_said_at_the_start(asked: list[Any]) -> None:
    with pytest.raises(BadPlugin, match=r"Unmade of package site-filters can not be loaded: OSError: no licence"):
        scheduler("Unmade")
    with pytest.raises(BadPlugin, match="AttributeError"):
        scheduler("Gone")
    with pytest.raises(ValidationError, match="Nowhere' is not known"):
        scheduler("Nowhere")
