"""`doctor` on a host with Fibre Channel adapters: what its ports see of the arrays that root allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.diagnostics.finding import Finding
from agent.diagnostics.place import Place
from agent.diagnostics.table import examine
from agent.host.simulated_hba import SimulatedHbas
from agent.host.simulator import SimulatedKernel
from tests.unit.agent.diagnostics import support

ONE, OTHER, ABSENT = "5005076300c20c8a", "5005076300c70c8a", "5005076300ff0c8a"


@pytest.fixture
def fabric(tmp_path: Path) -> SimulatedHbas:
    (tmp_path / "root").mkdir()
    return SimulatedHbas(SimulatedKernel(tmp_path / "root"), {f"0x{ONE}": (), f"0x{OTHER}": ()})


@pytest.fixture
def place(tmp_path: Path, fabric: SimulatedHbas) -> Place:
    return replace(support.made(tmp_path), root=fabric.kernel.root)


def found(place: Place, *allowed: str) -> list[Finding]:
    place.limits_file.write_text(f"[fc]\narray_ports = {list(allowed)}\n")
    return list(examine(place, ["fabric"]))


def test_a_host_without_adapters(place: Place) -> None:
    assert [one.state for one in examine(place, ["fabric"])] == ["skipped"]


def test_all_is_well_but_for_the_daemon_of_several_paths(place: Place, fabric: SimulatedHbas) -> None:
    fabric.add_host("host3")
    fabric.add_host("host4")
    told = found(place, ONE)
    assert [one.state for one in told] == ["ok", "ok", "ok", "warning"]
    assert f"{ONE} is seen by host3, host4" in told[2].message
    assert "multipath-tools" in told[3].remedy


def test_no_array_is_allowed(place: Place, fabric: SimulatedHbas) -> None:
    fabric.add_host("host3")
    assert [one.state for one in examine(place, ["fabric"])] == ["ok", "skipped"]
    assert "array_ports" in found(place)[1].message


def test_ports_that_are_away_are_told_with_what_to_look_at(place: Place, fabric: SimulatedHbas) -> None:
    fabric.add_host("host3")
    fabric.add_host("host4", "Linkdown")
    fabric.add_host("host5", "Offline")
    fabric.lose("host3", f"0x{ONE}")
    told = found(place, ONE, OTHER, ABSENT)
    assert [one.state for one in told] == ["ok", "warning", "skipped", "warning", "ok", "warning"]
    assert "has no link" in told[1].message
    assert f"{ONE} can not be used: blocked at host3" in told[3].message
    assert f"{ABSENT} is seen by no port" in told[5].message
