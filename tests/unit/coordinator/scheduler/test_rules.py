"""Capacity by the documented table, filters and weighers by name, hints, the lottery, and what a stale board does."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import Connection, update

from agent.wire.results import ratio_in_force
from coordinator.scheduler import specs
from coordinator.scheduler.board import Board, read_pool
from coordinator.scheduler.claims import claim, release
from coordinator.scheduler.errors import NoPool
from coordinator.scheduler.factors import factors
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.pool import GIB, Pool, of_row
from coordinator.scheduler.request import Hints, Request
from coordinator.scheduler.settings import SchedulerSettings
from coordinator.scheduler.told import shared
from coordinator.state import fleet
from coordinator.state.database import Database
from coordinator.state.tables.fleet import hosts
from tests.support import databases
from tests.unit.coordinator.scheduler.test_placement import host, put, why


def pool(**figures: Any) -> Pool:
    values: dict[str, Any] = {
        "total": 100, "free": 100, "provisioned": 0, "reserved_percent": 0, "ratio": 1.0, "thin": False, "thick": True,
        **figures,
    }  # fmt: skip
    for name in ("total", "free", "provisioned"):
        values[name] *= GIB
    place = {"id": "h@b#p", "host_id": "h", "backend": "b", "name": "p", "availability_zone": "nova"}
    return Pool(allocated=0, told=shared({}, thin=values["thin"], thick=values["thick"]), **place, **values)


THIN = {"thin": True, "thick": False}
BOTH = {"thin": True, "thick": True}


@pytest.mark.parametrize(("figures", "thick", "room"), [
    ({}, False, 100), ({"reserved_percent": 50, "total": 10, "free": 10}, False, 5),
    ({"provisioned": 40, "free": 60}, False, 60), ({"provisioned": 40, "free": 20}, False, 20),
    ({**THIN, "total": 10, "free": 10, "ratio": 2.0}, False, 20),
    ({**THIN, "total": 10, "free": 10, "ratio": 2.0, "provisioned": 19}, False, 1),
    ({**THIN, "total": 1000, "free": 400, "reserved_percent": 10, "ratio": 2.0, "provisioned": 1500}, False, 300),
    ({**THIN, "free": 0, "ratio": 20.0}, False, 0),
    ({**THIN, "free": 5, "reserved_percent": 10, "ratio": 20.0}, False, 0),
    ({**BOTH, "free": 20, "provisioned": 80, "ratio": 10.0}, True, 20),
    ({**BOTH, "free": 20, "provisioned": 80, "ratio": 10.0}, False, 200),
    ({**THIN, "free": 20, "provisioned": 80, "ratio": 10.0}, True, 200),
    ({"total": 0, "free": 0}, False, 0), ({"reserved_percent": 99}, False, 1),
])  # fmt: skip
def test_the_table_of_capacity(figures: dict[str, Any], thick: bool, room: int) -> None:
    one = pool(**figures)
    assert one.room(thick) == pytest.approx(room * GIB, abs=2)
    assert one.why_full(room * GIB, thick) is None
    assert one.why_full((room + 1) * GIB, thick) is not None


def test_what_is_promised_but_not_written_counts_when_pools_are_compared() -> None:
    """On a disk that is used by others too, the free bytes of thin pools bind, and no new volume changes them."""
    one, other = (pool(**THIN, total=250, free=free, ratio=20.0) for free in (57, 56))
    assert one.spare() > other.spare()
    one.provisioned += 21 * GIB
    assert one.room() > other.room()
    assert one.spare() < other.spare()


def test_the_automatic_ratio() -> None:
    assert ratio_in_force("auto", total=100 * GIB, free=90 * GIB, promised=50 * GIB) == pytest.approx(1 + 50 / 11)
    assert ratio_in_force("auto", total=100 * GIB, free=100 * GIB, promised=0) == 20
    assert ratio_in_force(3.5, total=0, free=0, promised=7) == 3.5


@pytest.mark.parametrize(("foreign", "free", "ratio"), [(50, 90, 1 + 50 / 11), (0, 100, 20.0)])
def test_the_automatic_ratio_is_shown_and_used(db: Database, foreign: int, free: int, ratio: float) -> None:
    figures = {"thin": True, "max_over_subscription": "auto", "foreign_bytes": foreign * GIB, "free_bytes": free * GIB}
    host(db, "one", 100, **figures)
    told = db.read_now(lambda conn: of_row(fleet.pools_of(conn)[0]))
    assert float(told.capabilities["max_over_subscription_ratio"]) == pytest.approx(ratio)
    most = int(min(100 * ratio - foreign, free * ratio))
    assert "CapacityFilter" in why(db, Request((most + 1) * GIB))
    assert put(db, Request(most * GIB)).host_id == "one"


def test_what_others_have_taken_is_promised_too_and_no_volume_of_ours(db: Database) -> None:
    host(db, "thin", 10, thin=True, max_over_subscription=2.0, foreign_bytes=15 * GIB, allocated_bytes=0)
    for _ in range(3):
        put(db, Request(GIB))
    told = db.read_now(lambda conn: of_row(fleet.pools_of(conn)[0])).capabilities
    assert (told["provisioned_capacity_gb"], told["allocated_capacity_gb"]) == (18, 3)
    put(db, Request(2 * GIB))
    assert "over-committed (20 GiB of 20 GiB promised)" in why(db, Request(GIB))
    host(db, "thin", 10, thin=True, max_over_subscription=2.0, foreign_bytes=GIB, allocated_bytes=0)
    told = db.read_now(lambda conn: of_row(fleet.pools_of(conn)[0])).capabilities
    # No volume has a row here: the next poll says what there is.
    assert (told["provisioned_capacity_gb"], told["allocated_capacity_gb"]) == (1, 0)


def test_exactly_as_many_as_the_table_says(db: Database) -> None:
    host(db, "thin", 10, thin=True, max_over_subscription=2.0)
    scheduler = Scheduler()
    for _ in range(20):
        put(db, Request(GIB), scheduler)
    assert "over-committed (20 GiB of 20 GiB promised)" in why(db, Request(GIB))


@pytest.mark.parametrize(("calculation", "room", "word"), [
    ("both", 300, "over-committed (1500 GiB of 1800 GiB promised)"),
    ("standard", 300, "over-committed (1500 GiB of 1800 GiB promised)"), ("cinder", 600, "has 400 GiB free"),
])  # fmt: skip
def test_what_an_operator_lets_decide_about_thin_promises(
    db: Database, calculation: str, room: int, word: str
) -> None:  # fmt: skip
    figures = {"thin": True, "max_over_subscription": 2.0, "reserved_percent": 10, "foreign_bytes": 1500 * GIB}
    host(db, "one", 1000, free_bytes=400 * GIB, **figures)
    scheduler = Scheduler(SchedulerSettings.model_validate({"over_provisioning_calculation": calculation}))
    refused = why(db, Request((room + 1) * GIB), scheduler)
    assert word in refused
    assert put(db, Request(room * GIB), scheduler).host_id == "one"
    stay = Request((room + 1) * GIB, pool_id="one@files#files")
    with pytest.raises(NoPool, match="CapacityFilter"):
        db.write_now(lambda conn: scheduler.claim_there(conn, stay))


def test_what_decides_may_be_changed_while_volumes_are_placed(db: Database) -> None:
    figures = {"thin": True, "max_over_subscription": 2.0, "reserved_percent": 10, "foreign_bytes": 1500 * GIB}
    name = host(db, "one", 1000, free_bytes=400 * GIB, **figures)
    scheduler, asked = Scheduler(), Request(350 * GIB)
    stays = Request(350 * GIB, pool_id=name, purpose="extend_volume")
    for calculation, fits in (("standard", False), ("cinder", True), ("standard", False), ("both", False)):
        scheduler.follow(SchedulerSettings.model_validate({"over_provisioning_calculation": calculation}))
        assert (db.read_now(lambda conn: scheduler.unfit(conn, stays)) is None) == fits
        if fits:
            assert put(db, asked, scheduler).pool_id == name
            db.write_now(lambda conn: release(conn, name, 350 * GIB))
        else:
            assert "over-committed (1500 GiB of 1800 GiB promised)" in why(db, asked, scheduler)


FIGURES = st.fixed_dictionaries({
    "total": st.integers(0, 50), "free": st.integers(0, 50), "promised": st.integers(0, 120),
    "percent": st.integers(0, 100), "ratio": st.sampled_from([1.0, 1.5, 20.0]), "size": st.integers(1, 150),
    "thin": st.booleans(), "thick": st.booleans(), "wants_thick": st.booleans(),
})  # fmt: skip


@pytest.mark.parametrize("calculation", ["both", "standard", "cinder"])
def test_claims_and_the_table_agree(tmp_path: Path, calculation: Any) -> None:
    """What the board says and what the database decides is one rule."""
    database = databases.fresh(tmp_path / "shared.db")

    @settings(max_examples=40)
    @given(FIGURES)
    def agree(drawn: dict[str, Any]) -> None:
        total, size, thin = drawn["total"], drawn["size"] * GIB, drawn["thin"]
        figures = {"free_bytes": min(drawn["free"], total) * GIB, "foreign_bytes": drawn["promised"] * GIB}
        kind = {"thin": thin, "thick": drawn["thick"] or not thin, "max_over_subscription": drawn["ratio"]}
        name = host(database, "one", total, reserved_percent=drawn["percent"], **figures, **kind)
        one = database.read_now(lambda conn: read_pool(conn, name, calculation))
        assert one is not None
        judged = one.thick_for(drawn["wants_thick"])
        fits = one.why_full(size, drawn["wants_thick"]) is None
        assert database.write_now(lambda conn: claim(conn, name, size, thick=judged, by=calculation)) == fits

    try:
        agree()
    finally:
        database.close()


def test_a_thick_type_is_judged_by_physical_space(db: Database) -> None:
    host(db, "both20", 100, thin=True, thick=True, free_bytes=20 * GIB)
    host(db, "both60", 100, thin=True, thick=True, free_bytes=60 * GIB)
    thick = {"provisioning:type": "thick"}
    assert put(db, Request(50 * GIB, extra_specs=thick)).host_id == "both60"
    assert Request(1, extra_specs={"thick_provisioning_support": "<is> True"}).wants_thick
    assert Request(1, extra_specs={"capabilities:thick_provisioning_support": "<is> true"}).wants_thick
    assert not Request(1, extra_specs={"thick_provisioning_support": "<is> True>"}).wants_thick
    assert not Request(1, extra_specs={"thick_provisioning_support": "<is> False"}).wants_thick
    host(db, "thin", 900, thin=True)
    by_flag = {"capabilities:thick_provisioning_support": "<is> True"}
    assert "thin@files#files lacks capabilities:thick_provisioning_support" in why(
        db, Request(90 * GIB, extra_specs=by_flag)
    )
    db.write_now(lambda conn: fleet.set_enabled(conn, "thin", enabled=False))
    assert "has 20 GiB free" in why(db, Request(70 * GIB, extra_specs=thick))
    assert put(db, Request(70 * GIB)).host_id


def test_operators_own_words(db: Database) -> None:
    host(db, "a", capabilities={"media": "ssd", "tier": 2})
    host(db, "b", 900, capabilities={"media": "hdd", "tier": 1})
    assert put(db, Request(GIB, extra_specs={"media": "ssd"})).host_id == "a"
    assert put(db, Request(GIB, extra_specs={"capabilities:tier": "<= 1"})).host_id == "b"
    assert "a@files#files lacks media=<or> tape <or> hdd" in why(
        db, Request(GIB, extra_specs={"media": "<or> tape <or> hdd", "tier": ">= 2"})
    )


def test_a_type_is_placed_in_its_zones_alone(db: Database) -> None:
    for name, zone in (("a", "az1"), ("b", "az2"), ("c", "az3")):
        host(db, name, 1000 if name == "c" else 100)
        db.write_now(lambda conn, name=name, zone=zone: _in_zone(conn, name, zone))  # type: ignore[misc]
    bound = {"RESKEY:availability_zones": "az1, az2"}
    placed = [put(db, Request(GIB, extra_specs=bound)) for _ in range(20)]
    assert {(one.host_id, one.availability_zone) for one in placed} == {("a", "az1"), ("b", "az2")}
    assert put(db, Request(GIB, availability_zone="az2", extra_specs=bound)).host_id == "b"
    assert put(db, Request(GIB)).host_id == "c"
    assert "c@files#files is in availability zone az3" in why(db, Request(GIB, "az3", extra_specs=bound))
    assert specs.zones({}) is None
    assert specs.zones({"RESKEY:availability_zones": " , "}) == ()


def _in_zone(conn: Connection, name: str, zone: str) -> None:
    conn.execute(update(hosts).where(hosts.c.id == name).values(availability_zone=zone))


def test_hints(db: Database) -> None:
    host(db, "a", 500)
    host(db, "b", 100, capabilities={"media": "ssd"})
    beside = Hints(same=frozenset({"b@files"}))
    assert {put(db, Request(GIB, hints=beside)).host_id for _ in range(3)} == {"b"}
    away = Hints(different=frozenset({"a@files"}))
    assert put(db, Request(GIB, hints=away)).host_id == "b"
    both = replace(away, different=frozenset({"a@files", "b@files"}))
    assert "holds a volume of hint different_host" in why(db, Request(GIB, hints=both))
    assert put(db, Request(GIB, hints=Hints(local_to_host="b"))).host_id == "b"
    asked = '["and", ["=", "$media", "ssd"], [">=", "$free_capacity_gb", 10]]'
    assert put(db, Request(GIB, hints=Hints(query='["=", "$pool_name", "files"]'))).host_id == "a"
    assert "is not understood" in why(db, Request(GIB, hints=Hints(query='["=", "$media"')))
    assert "a@files#files can not be compared" in why(db, Request(1000 * GIB, hints=Hints(query=asked)))


def by_number(**settings: Any) -> Scheduler:
    """Of volumes; it reads once, as there are no rows here of what it placed."""
    made = Scheduler(SchedulerSettings(weighers=("VolumeNumberWeigher",), **settings))
    made.board = Board(counts_volumes=True, clock=lambda: 0.0)
    return made


def test_spread_by_number_of_volumes(db: Database) -> None:
    host(db, "a", 300)
    host(db, "b", 100)
    few, many = by_number(), by_number(multipliers={"VolumeNumberWeigher": 1.0})
    assert Counter(put(db, Request(10 * GIB), few).host_id for _ in range(6)) == {"a": 3, "b": 3}
    assert len({put(db, Request(5 * GIB), many).host_id for _ in range(6)}) == 1


@pytest.mark.parametrize(("volumes", "wanted"), [(6, {"a": 3, "b": 3}), (40, {"a": 3, "b": 2, "refused": 35})])
def test_many_at_once_are_counted_and_fit(db: Database, volumes: int, wanted: dict[str, int]) -> None:
    """None is placed by what was so before the others came: neither by number nor by room."""
    host(db, "a", 300 if volumes == 6 else 30)
    host(db, "b", 100 if volumes == 6 else 20)
    few, found = by_number(), Counter[str]()

    def one() -> None:
        try:
            found[put(db, Request(10 * GIB), few).host_id] += 1
        except NoPool:
            found["refused"] += 1

    threads = [threading.Thread(target=one) for _ in range(volumes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted


def test_a_stale_board_neither_hides_nor_overfills(db: Database) -> None:
    host(db, "a", 10)
    scheduler = Scheduler()
    put(db, Request(8 * GIB), scheduler)
    host(db, "b", 100)
    assert put(db, Request(8 * GIB), scheduler).host_id == "b"
    db.write_now(lambda conn: fleet.set_reachable(conn, "b", reachable=False))
    with pytest.raises(NoPool, match="b@files#files can not be reached"):
        put(db, Request(8 * GIB), scheduler)
    db.write_now(lambda conn: fleet.set_reachable(conn, "b", reachable=True))
    db.write_now(lambda conn: fleet.set_enabled(conn, "b", enabled=False))
    with pytest.raises(NoPool, match="b@files#files is disabled"):
        put(db, Request(8 * GIB), scheduler)


def test_refusals_are_explained_pool_by_pool(db: Database) -> None:
    host(db, "a", 10)
    host(db, "b", 100, capabilities={"media": "ssd"})
    told = db.read_now(lambda conn: Scheduler().why_not(conn, Request(50 * GIB)))
    assert told == {
        "a@files#files": "would be over-committed (0 MiB of 10 GiB promised) [CapacityFilter]",
        "b@files#files": None,
    }


@pytest.mark.parametrize("wrong", [
    {"filters": ("NoSuchFilter",)}, {"weighers": ("NoSuchWeigher",)}, {"multipliers": {"x": 1.0}}, {"choice": "dice"},
])  # fmt: skip
def test_unknown_names_are_refused_with_the_known_ones(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SchedulerSettings(**wrong)


def test_a_filter_that_is_left_out_does_not_count(db: Database) -> None:
    host(db, "a", 100)
    free = Scheduler(SchedulerSettings(filters=("CapacityFilter",)))
    assert put(db, Request(GIB, extra_specs={"media": "tape"}), free).host_id == "a"
    nowhere = Hints(same=frozenset({""}), different=frozenset({"a@files"}), local_to_host="b", query='["=", 1, 2]')
    assert put(db, Request(GIB, hints=nowhere), free).host_id == "a"


def test_the_figures_that_are_shown_are_those_that_decide() -> None:
    thick, thin = factors(pool(total=1000, free=900, reserved_percent=5, provisioned=100, ratio=2.0, **BOTH))
    assert thick == {
        "provisioned_type": "thick", "total_capacity": 1000, "free_capacity": 900, "reserved_capacity": 50,
        "total_reserved_available_capacity": 950, "max_over_subscription_ratio": None, "total_available_capacity": 950,
        "provisioned_capacity": 100, "calculated_free_capacity": 850, "virtual_free_capacity": 850,
        "free_percent": 89.47, "provisioned_ratio": 0.11,
    }  # fmt: skip
    assert (thin["total_available_capacity"], thin["calculated_free_capacity"]) == (1900, 1800)
    assert (thin["virtual_free_capacity"], thin["free_percent"], thin["provisioned_ratio"]) == (1700, 94.74, 0.05)
    assert thin["max_over_subscription_ratio"] == 2.0


@pytest.mark.parametrize("figures", [{}, THIN, BOTH, {**BOTH, "total": 0, "free": 0}, {**THIN, "provisioned": 999}])
def test_what_is_shown_as_free_fits_and_no_more(figures: dict[str, Any]) -> None:
    shown = pool(**{"ratio": 3.0, "free": 70, "reserved_percent": 10, **figures})
    for each in factors(shown):
        wants_thick = each["provisioned_type"] == "thick"
        most = int(each["virtual_free_capacity"] * GIB)
        assert shown.why_full(most, wants_thick) is None
        assert shown.why_full(most + 1, wants_thick) is not None
    assert [each["provisioned_type"] for each in factors(pool(**THIN))] == ["thin"]
    assert [each["provisioned_type"] for each in factors(pool())] == ["thick"]
