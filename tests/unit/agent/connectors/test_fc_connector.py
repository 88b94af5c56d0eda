"""The Fibre Channel connector on a simulated IBM Z: every way to get a path, lose it, give it up."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NoFabricPath, NoFabricPort, NotAttached, PathDown
from agent.connectors.registry import connector
from agent.host import fcp
from agent.host.simulated_scsi import Volume
from agent.host.simulated_z import SimulatedZ
from agent.host.simulated_zfcp import SimulatedFcp
from agent.host.simulator import SimulatedKernel
from agent.privsep.errors import VerbRefused
from agent.wire.jobs import Connection, Fabric, FabricPort
from tests.support.simulated import running_on

ONE, OTHER, UNKNOWN = "0x5005076300c20c8a", "0x5005076300c70c8a", "0x5005076300ff0c8a"
LUN, SECOND = "0x000a000000000000", "0x000b000000000000"
SIZE = 1 << 30
IDENTITY = Volume().identity
ADAPTERS = ("0.0.1800", "0.0.1801")
Make = Callable[..., SimulatedFcp]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[SimulatedKernel]:
    made = SimulatedKernel(tmp_path)
    SimulatedZ(made)
    with running_on(made, ["0.0.1800-0.0.1801"]):
        yield made


@pytest.fixture
def fabric(kernel: SimulatedKernel) -> Make:
    def make(luns: dict[str, tuple[str, ...]] | None = None, adapters: int = 1, **more: Any) -> SimulatedFcp:
        made = SimulatedFcp(kernel, {ONE: (LUN,), OTHER: (LUN,)} if luns is None else luns, **more)
        for bus_id in ADAPTERS[:adapters]:
            made.add_adapter(bus_id)
        return made

    return make


def wanted(*wwpns: str, lun: int = 10, identity: str = IDENTITY, size: int = SIZE) -> Connection:
    ports = tuple(FabricPort(wwpn=wwpn.removeprefix("0x"), lun=lun) for wwpn in wwpns or (ONE, OTHER))
    return Connection(protocol="fc", target=identity, identity=identity, size_bytes=size, fabric=Fabric(ports=ports))


def units_written(kernel: SimulatedKernel) -> list[tuple[str, str]]:
    folder = "sys/bus/ccw/drivers/zfcp/"
    return [(place.removeprefix(folder), text) for place, text in kernel.writes if "unit_" in place]


def nothing_left(fabric: SimulatedFcp) -> bool:
    units = [unit for bus_id in fcp.every() for wwpn in (ONE, OTHER) for unit in fcp.units(bus_id, wwpn)]
    return not units and not fabric.disks and not list((fabric.kernel.sys / "block").iterdir())


async def test_one_path_by_hand_and_back(kernel: SimulatedKernel, fabric: Make) -> None:
    made, fc = fabric({ONE: (LUN,)}), connector("fc")
    found = await fc.attach(wanted(ONE), deadline=5)
    assert (found.device, found.size, found.paths, found.how) == ("/dev/sda", SIZE, ("sda",), "unit")
    assert fc.present(wanted(ONE)) == found
    assert await fc.detach(wanted(ONE), deadline=5)
    assert units_written(kernel) == [(f"0.0.1800/{ONE}/unit_add", LUN), (f"0.0.1800/{ONE}/unit_remove", LUN)]
    assert nothing_left(made)
    assert fc.present(wanted(ONE)) is None
    assert not await fc.detach(wanted(ONE), deadline=5)


async def test_every_device_and_port_is_a_path_of_one_map(kernel: SimulatedKernel, fabric: Make) -> None:
    made, fc = fabric(adapters=2, multipathd=True), connector("fc")
    found = await fc.attach(wanted(), deadline=5)
    assert (found.name, found.size, len(found.paths)) == ("dm-0", SIZE, 4)
    made.volumes[LUN] = Volume(size=2 * SIZE)
    assert (await fc.resize(wanted(), 2 * SIZE)).size == 2 * SIZE
    assert await fc.detach(wanted(), deadline=5)
    assert nothing_left(made)


async def test_without_a_daemon_one_path_is_used_and_all_are_given_up(fabric: Make) -> None:
    made, fc = fabric(adapters=2), connector("fc")
    found = await fc.attach(wanted(), deadline=5)
    assert (found.name, len(found.paths)) == ("sda", 4)
    assert await fc.detach(wanted(), deadline=5)
    assert nothing_left(made)


async def test_where_the_kernel_scans_nothing_is_added_and_a_second_attach_finds_it(
    kernel: SimulatedKernel, fabric: Make
) -> None:
    made, fc = fabric(npiv=True, lun_scan=True), connector("fc")
    for _ in range(2):
        found = await fc.attach(wanted(), deadline=5)
        assert found.how == "scan"
        assert await fc.detach(wanted(), deadline=5)
        assert nothing_left(made)
    assert units_written(kernel) == []


@pytest.mark.parametrize(("npiv", "scan"), [(True, False), (False, True)])
async def test_npiv_and_consent_are_both_needed_for_the_scan(fabric: Make, npiv: bool, scan: bool) -> None:
    fabric(npiv=npiv, lun_scan=scan)
    assert (await connector("fc").attach(wanted(ONE), deadline=5)).how == "unit"


async def test_a_unit_that_was_added_is_removed_also_when_the_kernel_scans_now(
    kernel: SimulatedKernel, fabric: Make
) -> None:
    made = fabric({ONE: (LUN,)}, npiv=True)
    await connector("fc").attach(wanted(ONE), deadline=5)
    kernel.put("sys/module/zfcp/parameters/allow_lun_scan", "Y")
    await connector("fc").detach(wanted(ONE), deadline=5)
    assert nothing_left(made)


async def test_a_port_that_shows_after_a_rescan_and_one_that_comes_late(fabric: Make) -> None:
    made = fabric({ONE: (LUN,)}, hidden=True)
    assert (await connector("fc").attach(wanted(ONE), deadline=5)).paths == ("sda",)
    assert await connector("fc").detach(wanted(ONE), deadline=5)
    made.luns[OTHER] = (LUN,)
    made.hidden = True
    waiting = asyncio.create_task(connector("fc").attach(wanted(UNKNOWN), deadline=30))
    await asyncio.sleep(0.1)
    made.luns[UNKNOWN] = (LUN,)
    made.appear_port("0.0.1800", UNKNOWN)
    assert len((await waiting).paths) == 1


async def test_an_adapter_that_is_down_gets_no_unit(fabric: Make) -> None:
    made = fabric(adapters=0)
    with pytest.raises(NoFabricPort, match="none is set online"):
        await connector("fc").attach(wanted(), deadline=1)
    made.add_adapter("0.0.1800", "Linkdown")
    with pytest.raises(NoFabricPort, match=r"0\.0\.1800 is Linkdown"):
        await connector("fc").attach(wanted(), deadline=1)
    made.add_adapter("0.0.1801")
    assert len((await connector("fc").attach(wanted(ONE), deadline=5)).paths) == 1
    assert fcp.units("0.0.1800", ONE) == ()


async def test_a_path_that_says_why_it_does_not_come_is_not_waited_for(fabric: Make) -> None:
    made = fabric({ONE: (LUN,), OTHER: ()})
    made.set_error("0.0.1800", OTHER, "", "access_denied")
    clock = asyncio.get_running_loop().time
    begun = clock()
    assert (await connector("fc").attach(wanted(ONE, OTHER, UNKNOWN), deadline=60)).paths == ("sda",)
    assert clock() - begun < 2.9  # less than what a silent path is waited for
    assert await connector("fc").detach(wanted(ONE, OTHER, UNKNOWN), deadline=5)
    assert nothing_left(made)


async def test_a_silent_path_is_waited_for_a_moment(fabric: Make) -> None:
    made = fabric({ONE: (LUN,), OTHER: ()})
    attaching = asyncio.create_task(connector("fc").attach(wanted(), deadline=60))
    await asyncio.sleep(0.1)
    made.offer(OTHER, LUN)
    assert len((await attaching).paths) == 2


async def test_no_path_says_why_and_leaves_nothing(fabric: Make) -> None:
    made = fabric({ONE: ()})
    made.set_error("0.0.1800", ONE, "", "access_denied")
    with pytest.raises(NoFabricPath, match=rf"0\.0\.1800 {ONE}: port {ONE} access denied; .*no such port"):
        await connector("fc").attach(wanted(ONE, UNKNOWN), deadline=0.2)
    assert nothing_left(made)


async def test_a_refused_unit_is_told_and_the_others_go_on(kernel: SimulatedKernel, fabric: Make) -> None:
    fabric()
    kernel.fail(f"sys/bus/ccw/drivers/zfcp/0.0.1800/{OTHER}/unit_add", errno.EIO)
    assert (await connector("fc").attach(wanted(), deadline=5)).paths == ("sda",)
    await connector("fc").detach(wanted(), deadline=5)
    kernel.fail(f"sys/bus/ccw/drivers/zfcp/0.0.1800/{ONE}/unit_add", errno.EACCES)
    with pytest.raises(NoFabricPath, match="add a unit"):
        await connector("fc").attach(wanted(), deadline=0.2)


async def test_twice_is_once_and_a_unit_that_is_there_is_used(fabric: Make) -> None:
    made, fc = fabric({ONE: (LUN,)}), connector("fc")
    first = await fc.attach(wanted(ONE), deadline=5)
    assert await fc.attach(wanted(ONE), deadline=5) == first
    assert len(made.disks) == 1


async def test_only_the_promised_volume_is_handed_out(fabric: Make) -> None:
    made, fc = fabric({ONE: (LUN,)}), connector("fc")
    with pytest.raises(DeviceMismatch, match="promised is"):
        await fc.attach(wanted(ONE, identity="naa.60050763000000000000000000000099"), deadline=5)
    with pytest.raises(DeviceMismatch, match="promised are"):
        await fc.attach(wanted(ONE, size=2 * SIZE), deadline=5)
    assert nothing_left(made)


async def test_what_was_at_the_lun_before_is_purged_unless_it_is_used(kernel: SimulatedKernel, fabric: Make) -> None:
    made, fc = fabric({ONE: (LUN,)}), connector("fc")
    await fc.attach(wanted(ONE), deadline=5)
    now = "naa.60050763000000000000000000000099"
    made.volumes[LUN] = Volume(now)
    number = (kernel.sys / "block/sda/dev").read_text().strip()
    kernel.put("proc/self/mountinfo", f"36 35 {number} / /mnt rw - ext4 /dev/sda rw")
    with pytest.raises(DeviceMismatch, match="in use: mounted on /mnt"):
        await fc.attach(wanted(ONE, identity="naa.60050763000000000000000000000077"), deadline=5)
    kernel.put("proc/self/mountinfo")
    assert (await fc.attach(wanted(ONE, identity=now), deadline=5)).paths == ("sda",)


async def test_a_map_of_the_volume_that_was_there_before_holds_nothing_up(
    kernel: SimulatedKernel, fabric: Make
) -> None:
    """The multipath daemon remembers it, and gathers a disk of the promised one to its map."""
    before = "naa.60050763000000000000000000000099"
    made, fc = fabric(multipathd=True), connector("fc")
    made.mistaken = before
    found = await fc.attach(wanted(), deadline=5)
    over = kernel.sys / "block" / found.name
    assert (over / "dm/uuid").read_text().strip().endswith(IDENTITY.removeprefix("naa."))
    assert {path.name for path in (over / "slaves").iterdir()} == set(found.paths) == {"sda", "sdb"}
    assert await fc.detach(wanted(), deadline=5)
    assert nothing_left(made)


async def test_a_map_of_another_volume_that_comes_while_it_is_attached_does_not_keep_it(fabric: Make) -> None:
    made, fc = fabric({ONE: (LUN,)}, multipathd=True), connector("fc")
    await fc.attach(wanted(ONE), deadline=5)
    (address,) = made.disks
    made.mistaken = "naa.60050763000000000000000000000099"
    made._gather(address, "sda")
    assert await fc.detach(wanted(ONE), deadline=5)
    assert nothing_left(made)


async def test_in_use_stays_and_names_its_user(kernel: SimulatedKernel, fabric: Make) -> None:
    made, fc = fabric({ONE: (LUN,)}), connector("fc")
    found = await fc.attach(wanted(ONE), deadline=5)
    number = (kernel.sys / "block" / found.name / "dev").read_text().strip()
    kernel.put("proc/self/mountinfo", f"36 35 {number} / /mnt rw - ext4 {found.device} rw")
    with pytest.raises(DetachIncomplete, match="mounted on /mnt"):
        await fc.detach(wanted(ONE), deadline=0.2)
    assert fc.present(wanted(ONE)) == found
    kernel.put("proc/self/mountinfo")
    assert await fc.detach(wanted(ONE), deadline=5)
    assert nothing_left(made)


@pytest.mark.parametrize("multipathd", [False, True])
async def test_detach_when_paths_are_lost_and_when_the_device_is_offline(
    kernel: SimulatedKernel, fabric: Make, multipathd: bool
) -> None:
    """A disk that does not answer is not flushed (its node is taken away here: to open it would fail)."""
    made, fc = fabric(adapters=2, multipathd=multipathd), connector("fc")
    await fc.attach(wanted(), deadline=5)
    for bus_id in ADAPTERS:
        for wwpn in (ONE, OTHER):
            made.set_state(bus_id, wwpn, "transport-offline")
    for node in kernel.dev.glob("sd*"):
        node.rename(node.with_name(f"gone-{node.name}"))
        node.touch(0)
    assert await fc.detach(wanted(), deadline=5)
    assert nothing_left(made)
    await fc.attach(wanted(), deadline=5)
    if not multipathd:
        made.set_offline("0.0.1800")
        assert await fc.detach(wanted(), deadline=5)
        assert nothing_left(made)


async def test_a_map_that_has_lost_all_its_disks_is_removed(fabric: Make) -> None:
    """Somebody has taken the disks away, and left the daemon's map."""
    made, fc = fabric(adapters=2, multipathd=True), connector("fc")
    await fc.attach(wanted(), deadline=5)
    for address in tuple(made.disks):
        made.drop(address)
    assert list((made.kernel.sys / "block").glob("dm-*"))
    assert await fc.detach(wanted(), deadline=5)
    assert nothing_left(made)


async def test_a_lost_path_refuses_a_resize_and_one_that_is_back_does_not(fabric: Make) -> None:
    made, fc = fabric({ONE: (LUN,)}), connector("fc")
    await fc.attach(wanted(ONE), deadline=5)
    made.volumes[LUN] = Volume(size=2 * SIZE)
    made.set_state("0.0.1800", ONE, "blocked")
    with pytest.raises(PathDown, match=rf"0\.0\.1800 {ONE}"):
        await fc.resize(wanted(ONE), 2 * SIZE)
    made.set_state("0.0.1800", ONE, "running")
    assert (await fc.resize(wanted(ONE), 2 * SIZE)).size == 2 * SIZE
    with pytest.raises(DeviceMismatch, match="after the rescan"):
        await fc.resize(wanted(ONE), 3 * SIZE)
    await fc.detach(wanted(ONE), deadline=5)
    with pytest.raises(NotAttached):
        await fc.resize(wanted(ONE), 2 * SIZE)


async def test_several_volumes_at_once_and_one_stays(fabric: Make) -> None:
    made, fc = fabric({ONE: (LUN, SECOND)}), connector("fc")
    other = "naa.60050763000000000000000000000011"
    made.volumes[SECOND] = Volume(other)
    first, second = wanted(ONE), wanted(ONE, lun=11, identity=other)
    await asyncio.gather(fc.attach(first, deadline=5), fc.attach(second, deadline=5))
    assert await fc.detach(first, deadline=5)
    assert fc.present(second) is not None
    assert fcp.units("0.0.1800", ONE) == (SECOND,)
    assert await fc.detach(second, deadline=5)
    assert nothing_left(made)


async def test_cut_off_in_the_middle_a_detach_leaves_nothing(fabric: Make) -> None:
    made, fc = fabric({ONE: ()}), connector("fc")
    attaching = asyncio.create_task(fc.attach(wanted(ONE), deadline=30))
    while not fcp.units("0.0.1800", ONE):
        await asyncio.sleep(0.01)
    attaching.cancel()
    await asyncio.wait([attaching])
    assert fcp.units("0.0.1800", ONE) == (LUN,)
    assert await fc.detach(wanted(ONE), deadline=5)
    assert nothing_left(made)


async def test_only_what_root_allowed(kernel: SimulatedKernel, fabric: Make) -> None:
    made = fabric(adapters=0)
    made.add_adapter("0.0.1900")
    with pytest.raises(VerbRefused, match="limits"):
        await connector("fc").attach(wanted(), deadline=0.2)


async def test_a_host_without_any_port_says_so(tmp_path: Path) -> None:
    with running_on(SimulatedKernel(tmp_path)), pytest.raises(NoFabricPort, match="it has none"):
        await connector("fc").attach(wanted(), deadline=0.1)
