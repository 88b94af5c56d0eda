"""Paths over FCP devices on the simulated host: by hand, by the kernel's own scan, and every way to get none."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import fcp
from agent.host.simulated_z import SimulatedZ
from agent.host.simulated_zfcp import SimulatedFcp
from agent.host.simulator import SimulatedKernel
from agent.privsep.errors import DeviceHeld, KernelRefused, NotOnThisPlatform, VerbRefused
from agent.zfcp import attach as zfcp
from agent.zfcp.errors import NoAdapter, NoPath
from tests.support.simulated import running_on

ONE, OTHER = "0x5005076300c20c8a", "0x5005076300c70c8a"
LUN, FOREIGN = "0x000a000000000000", "0x000b000000000000"
LUNS = {ONE: (LUN,), OTHER: (LUN,)}


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[SimulatedKernel]:
    kernel = SimulatedKernel(tmp_path)
    SimulatedZ(kernel)
    with running_on(kernel, ["0.0.1800-0.0.1801"]):
        yield kernel


async def test_units_are_added_by_hand_and_removed_again(simulated: SimulatedKernel) -> None:
    fabric = SimulatedFcp(simulated, LUNS)
    fabric.add_adapter("0.0.1800")
    fabric.add_adapter("0.0.1801")
    paths = await zfcp.attach([ONE, OTHER], LUN, deadline=5)
    assert [(one.bus_id, one.wwpn, one.mode) for one in paths] == [
        ("0.0.1800", ONE, "unit"), ("0.0.1800", OTHER, "unit"), ("0.0.1801", ONE, "unit"), ("0.0.1801", OTHER, "unit"),
    ]  # fmt: skip
    assert len({one.disk for one in paths}) == 4
    assert fcp.units("0.0.1800", ONE) == (LUN,)
    await zfcp.detach(paths, deadline=5)
    assert fabric.disks == {}
    assert fcp.units("0.0.1800", ONE) == ()
    await zfcp.detach(paths, deadline=5)


async def test_the_unit_is_written_where_the_document_says(simulated: SimulatedKernel) -> None:
    SimulatedFcp(simulated, {ONE: (LUN,)}).add_adapter("0.0.1800")
    paths = await zfcp.attach([ONE], LUN, deadline=5)
    await zfcp.detach(paths, deadline=5)
    place = f"sys/bus/ccw/drivers/zfcp/0.0.1800/{ONE}"
    assert [written for written in simulated.writes if "unit_" in written[0]] == [
        (f"{place}/unit_add", LUN), (f"{place}/unit_remove", LUN),
    ]  # fmt: skip


async def test_nothing_is_added_where_the_kernel_scans_by_itself(simulated: SimulatedKernel) -> None:
    SimulatedFcp(simulated, LUNS, npiv=True, lun_scan=True).add_adapter("0.0.1800")
    paths = await zfcp.attach([ONE, OTHER], LUN, deadline=5)
    assert {one.mode for one in paths} == {"scan"}
    await zfcp.detach(paths, deadline=5)
    assert not [place for place, _ in simulated.writes if "unit_" in place]


@pytest.mark.parametrize(("npiv", "scan"), [(True, False), (False, True)])
async def test_npiv_and_consent_are_both_needed_for_the_scan(
    simulated: SimulatedKernel, npiv: bool, scan: bool
) -> None:
    SimulatedFcp(simulated, LUNS, npiv=npiv, lun_scan=scan).add_adapter("0.0.1800")
    assert {one.mode for one in await zfcp.attach([ONE], LUN, deadline=5)} == {"unit"}


async def test_a_port_that_shows_after_a_rescan(simulated: SimulatedKernel) -> None:
    SimulatedFcp(simulated, LUNS, hidden=True).add_adapter("0.0.1800")
    assert len(await zfcp.attach([ONE], LUN, deadline=5)) == 1


async def test_an_adapter_that_is_down_gets_no_unit(simulated: SimulatedKernel) -> None:
    fabric = SimulatedFcp(simulated, LUNS)
    fabric.add_adapter("0.0.1800", "Linkdown")
    with pytest.raises(NoAdapter, match=r"0\.0\.1800 is Linkdown"):
        await zfcp.attach([ONE], LUN, deadline=0.1)
    fabric.add_adapter("0.0.1801")
    assert {one.bus_id for one in await zfcp.attach([ONE], LUN, deadline=5)} == {"0.0.1801"}
    assert fcp.units("0.0.1800", ONE) == ()


async def test_one_dead_port_leaves_the_healthy_path(simulated: SimulatedKernel) -> None:
    SimulatedFcp(simulated, {ONE: (LUN,), OTHER: ()}).add_adapter("0.0.1800")
    assert [one.wwpn for one in await zfcp.attach([ONE, OTHER], LUN, deadline=0.3)] == [ONE]


async def test_no_path_says_why_and_leaves_no_unit(simulated: SimulatedKernel) -> None:
    fabric = SimulatedFcp(simulated, {ONE: ()})
    fabric.add_adapter("0.0.1800")
    fabric.set_error("0.0.1800", ONE, "", "access_denied")
    with pytest.raises(NoPath, match=rf"0\.0\.1800 {ONE}: port {ONE} access denied"):
        await zfcp.attach([ONE], FOREIGN, deadline=0.2)
    assert fcp.units("0.0.1800", ONE) == ()
    with pytest.raises(NoPath, match="the fabric shows no such port"):
        await zfcp.attach([OTHER], LUN, deadline=0.2)


async def test_a_unit_that_is_there_already_is_success_and_a_refusal_is_told(simulated: SimulatedKernel) -> None:
    SimulatedFcp(simulated, LUNS).add_adapter("0.0.1800")
    await zfcp.attach([ONE], LUN, deadline=5)
    assert len(await zfcp.attach([ONE], LUN, deadline=5)) == 1
    simulated.fail(f"sys/bus/ccw/drivers/zfcp/0.0.1800/{OTHER}/unit_add", errno.EIO)
    with pytest.raises(KernelRefused, match="add a unit"):
        await zfcp.attach([OTHER], LUN, deadline=0.2)


async def test_a_mounted_disk_is_not_dropped(simulated: SimulatedKernel) -> None:
    SimulatedFcp(simulated, {ONE: (LUN,)}).add_adapter("0.0.1800")
    paths = await zfcp.attach([ONE], LUN, deadline=5)
    number = (simulated.sys / "block" / paths[0].disk / "dev").read_text().strip()
    simulated.put("proc/self/mountinfo", f"36 35 {number} / /mnt rw - ext4 /dev/{paths[0].disk} rw")
    with pytest.raises(DeviceHeld, match="mounted on /mnt"):
        await zfcp.detach(paths, deadline=0.2)
    assert fcp.units("0.0.1800", ONE) == (LUN,)


async def test_an_fcp_device_that_root_did_not_allow(simulated: SimulatedKernel) -> None:
    SimulatedFcp(simulated, LUNS).add_adapter("0.0.1900")
    with pytest.raises(VerbRefused, match="limits"):
        await zfcp.attach([ONE], LUN, deadline=0.2)


async def test_elsewhere_it_says_that_the_platform_does_not_have_it() -> None:
    with pytest.raises(NotOnThisPlatform, match="FCP is not supported on this platform"):
        await zfcp.attach([ONE], LUN, deadline=0.1)
