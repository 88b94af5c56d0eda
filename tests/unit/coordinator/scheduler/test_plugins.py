"""Filters and weighers of an operator's own, from a package that is installed as such a package is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection

from coordinator.scheduler import patience, plugins
from coordinator.scheduler.errors import BadPlugin, NoPool
from coordinator.scheduler.filters import FILTERS
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.pool import GIB
from coordinator.scheduler.request import Purpose, Request
from coordinator.scheduler.settings import SchedulerSettings
from coordinator.state.database import Database
from tests.unit.coordinator.scheduler.test_placement import host

CODE = """
import threading

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

class Rack:
    def _weigh_object(self, backend_state, weight_properties):
        ASKED.append((backend_state.host, weight_properties["request_spec"]["operation"], weight_properties["size"], 0))
        return backend_state.capabilities["rack"]

class FarRack(Rack):
    def weight_multiplier(self):
        return -2.5

class Odd:
    def __init__(self):
        self.answers = iter([float("nan"), float("inf"), None])

    def _weigh_object(self, backend_state, weight_properties):
        return next(self.answers)

class Unsure(Rack):
    def weight_multiplier(self):
        raise KeyError("rack_weight")

class Endless(Rack):
    def weight_multiplier(self):
        return float("inf")

class Stuck:
    go_on = threading.Event()

    def _weigh_object(self, backend_state, weight_properties):
        ASKED.append(backend_state.host)
        self.go_on.wait()
        return 1.0

    def backend_passes(self, backend_state, filter_properties):
        ASKED.append(backend_state.host)
        self.go_on.wait()
        return True
"""
POINTS = (
    "[cinder.scheduler.filters]\n"
    + "".join(f"{name} = site_filters:{name}\n" for name in ("SoldOut", "Broken", "Unmade", "Stuck"))
    + "Gone = site_filters:Gone\n[cinder.scheduler.weights]\n"
    + "".join(
        f"{name} = site_filters:{name}\n"
        for name in ("Rack", "FarRack", "Odd", "Unsure", "Endless", "SoldOut", "Stuck")
    )
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

    plugins.weigher.cache_clear()
    yield site_filters.ASKED
    plugins.weigher.cache_clear()
    sys.modules.pop("site_filters")


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
    purposes: tuple[Purpose, ...] = (
        "extend_volume", "create_snapshot", "retype_volume", "manage_existing", "manage_existing_snapshot",
    )  # fmt: skip

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


def weighing(*names: str, **more: Any) -> Scheduler:
    return Scheduler(SchedulerSettings(weighers=names, **more))


def test_a_weigher_of_the_operator_chooses(db: Database, asked: list[Any]) -> None:
    near, _ = host(db, "a", 10, capabilities={"rack": 1}), host(db, "b", 100, capabilities={"rack": 9})

    def chosen(by: Scheduler) -> str:
        return db.write_now(lambda conn: by.place(conn, Request(2 * GIB))).host_id

    assert chosen(weighing("CapacityWeigher")) == "b"
    assert chosen(weighing("Rack")) == "b"
    assert (near, "create_volume", 2, 0) in asked
    # By what it says itself, by what the configuration says, and beside others.
    assert chosen(weighing("FarRack")) == "a"
    assert chosen(weighing("Rack", multipliers={"Rack": -1.0})) == "a"
    assert chosen(weighing("FarRack", multipliers={"FarRack": 1.0})) == "b"
    assert chosen(weighing("CapacityWeigher", "FarRack")) == "a"
    assert chosen(weighing("CapacityWeigher", "FarRack", multipliers={"CapacityWeigher": 3.0})) == "b"
    assert chosen(weighing("Rack", choice="lottery")) in {"a", "b"}


def test_a_weigher_that_fails_or_says_no_number_counts_as_0(db: Database, asked: list[Any]) -> None:
    host(db, "a", 100)
    for _ in range(5):
        assert db.write_now(lambda conn: weighing("Odd").place(conn, Request(GIB))).host_id == "a"


def test_a_weigher_that_can_not_be_loaded_is_said_at_the_start(asked: list[Any]) -> None:
    with pytest.raises(BadPlugin, match=r"The weigher Unsure of package .* weight_multiplier: KeyError: 'rack_weight'"):
        weighing("Unsure")
    with pytest.raises(BadPlugin, match="it counts inf"):
        weighing("Endless")
    with pytest.raises(ValidationError, match="finite"):
        weighing("Rack", multipliers={"Rack": float("nan")})
    with pytest.raises(BadPlugin, match="_weigh_object"):
        weighing("SoldOut")
    with pytest.raises(ValidationError, match="weigher 'Nowhere' is not known"):
        weighing("Nowhere")
    with pytest.raises(ValidationError, match="'Nowhere' is not known"):
        weighing("Rack", multipliers={"Nowhere": 1.0})


@pytest.fixture
def stuck(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What lets it go on."""
    monkeypatch.setattr(plugins, "Patience", lambda name: patience.Patience(name, 0.2))
    go_on = sys.modules["site_filters"].Stuck.go_on
    yield go_on
    go_on.set()


def test_a_weigher_that_hangs_holds_nobody_up(db: Database, asked: list[Any], stuck: Any) -> None:
    for name in "abc":
        host(db, name, 100)
    weighing = Scheduler(SchedulerSettings(weighers=("Stuck",)))
    for _ in range(3):
        assert db.write_now(lambda conn: weighing.place(conn, Request(GIB))).pool_id
    assert len(asked) == 1, "it is asked nothing more while it has not answered"
    stuck.set()
    deadline = time.monotonic() + 60
    while len(asked) < 4:
        db.write_now(lambda conn: weighing.place(conn, Request(GIB)))
        assert time.monotonic() < deadline


def test_a_filter_that_hangs_refuses_and_says_so(db: Database, asked: list[Any], stuck: Any) -> None:
    host(db, "a", 100)
    filtering = scheduler("Stuck")
    for _ in range(2):
        with pytest.raises(NoPool, match=r"can not be asked: it has not answered within 0.2 s \[Stuck\]"):
            db.write_now(lambda conn: filtering.place(conn, Request(GIB)))
    assert len(asked) == 1
