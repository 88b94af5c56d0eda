"""The Fibre Channel connector over plain adapters of a simulated host: only what was ordered, proven, and all of it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.connectors.base import Cutting
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NoFabricPath, NoFabricPort, NotAttached, PathDown
from agent.connectors.registry import connector
from agent.diagnostics import live
from agent.diagnostics.transports import reached
from agent.host import fc
from agent.host.simulated_hba import SimulatedHbas
from agent.host.simulated_scsi import Volume
from agent.host.simulator import SimulatedKernel
from agent.privsep import devices
from agent.privsep.errors import VerbRefused
from agent.wire.jobs import Connection, Fabric, FabricPort
from tests.support.processes import needs_node, opened
from tests.support.simulated import running_on

ONE, OTHER, FOREIGN = "0x5005076300c20c8a", "0x5005076300c70c8a", "0x5005076300ff0c8a"
LUN, SECOND = "0x000a000000000000", "0x000b000000000000"
SIZE, IDENTITY = 1 << 30, Volume().identity
STRANGER = "naa.60050763000000000000000000000099"
Make = Callable[..., SimulatedHbas]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[SimulatedKernel]:
    made = SimulatedKernel(tmp_path)
    with running_on(made, array_ports=[ONE[2:], OTHER[2:]]):
        yield made


@pytest.fixture
def fabric(kernel: SimulatedKernel) -> Make:
    def make(luns: dict[str, tuple[str, ...]] | None = None, hosts: int = 1, **more: Any) -> SimulatedHbas:
        found: dict[str, tuple[str, ...]] = {ONE: (LUN,), OTHER: (LUN,)} if luns is None else luns
        made = SimulatedHbas(kernel, found, **{"scans": False, **more})
        for number in range(3, 3 + hosts):
            made.add_host(f"host{number}")
        return made

    return make


def wanted(*wwpns: str, lun: int = 10, identity: str = IDENTITY, size: int = SIZE, flat: bool = False) -> Connection:
    ports = tuple(FabricPort(wwpn=wwpn.removeprefix("0x"), lun=lun) for wwpn in wwpns or (ONE, OTHER))
    told = Fabric(ports=ports, addressing="SAM2" if flat else "SAM")
    return Connection(protocol="fc", target=identity, identity=identity, size_bytes=size, fabric=told)


def nothing_left(fabric: SimulatedHbas) -> bool:
    return not fabric.disks and not list((fabric.kernel.sys / "block").iterdir())


async def test_one_lun_is_looked_at_by_its_address_and_given_back(fabric: Make) -> None:
    made, hba = fabric({ONE: (LUN, SECOND)}), connector("fc")
    found = await hba.attach(wanted(ONE), deadline=5)
    assert (found.device, found.size, found.paths, found.how) == ("/dev/sda", SIZE, ("sda",), "scan")
    assert made.scanned == [("host3", "0 0 10")]
    assert list(made.disks) == ["3:0:0:10"]
    assert hba.present(wanted(ONE)) == found
    assert await hba.detach(wanted(ONE), deadline=5)
    assert nothing_left(made)
    assert hba.present(wanted(ONE)) is None
    assert not await hba.detach(wanted(ONE), deadline=5)


async def test_flat_numbers_are_written_as_the_kernel_has_them(fabric: Make) -> None:
    made = fabric({ONE: ("0x412c000000000000",)})
    assert (await connector("fc").attach(wanted(ONE, lun=300, flat=True), deadline=5)).paths == ("sda",)
    assert made.scanned == [("host3", f"0 0 {0x4000 + 300}")]


async def test_every_port_is_a_path_of_one_map_that_grows(fabric: Make) -> None:
    made, hba = fabric(hosts=2, multipathd=True), connector("fc")
    found = await hba.attach(wanted(), deadline=5)
    assert (found.name, found.size, len(found.paths)) == ("dm-0", SIZE, 4)
    assert sorted(made.scanned) == [(host, f"0 {target} 10") for host in ("host3", "host4") for target in (0, 1)]
    made.volumes[LUN] = Volume(size=2 * SIZE)
    assert (await hba.resize(wanted(), 2 * SIZE)).size == 2 * SIZE
    assert await hba.detach(wanted(), deadline=5)
    assert nothing_left(made)


async def test_what_the_kernel_took_in_by_itself_is_read_anew_and_used(fabric: Make) -> None:
    made = fabric(scans=True)
    made.volumes[LUN] = Volume(size=2 * SIZE)  # grown since the kernel looked
    found = await connector("fc").attach(wanted(size=2 * SIZE), deadline=5)
    assert (found.size, len(found.paths), made.scanned) == (2 * SIZE, 2, [])


async def test_only_ports_that_see_the_array_are_asked(fabric: Make) -> None:
    made = fabric(hosts=0)
    with pytest.raises(NoFabricPort, match="it has none"):
        await connector("fc").attach(wanted(), deadline=1)
    made.hidden = {("host4", ONE)}
    made.add_host("host9", "Linkdown")  # a virtual port that is not in use looks the same
    with pytest.raises(NoFabricPort, match="host9 is Linkdown"):
        await connector("fc").attach(wanted(), deadline=1)
    for host in ("host3", "host4"):
        made.add_host(host)
    assert len((await connector("fc").attach(wanted(), deadline=5)).paths) == 3
    assert "host9" not in {host for host, _ in made.scanned}
    assert ("host4", "0 0 10") in made.scanned  # its first target is the other port
    assert len(made.scanned) == 3


async def test_ports_of_ibm_z_are_left_to_their_own_way(kernel: SimulatedKernel, fabric: Make) -> None:
    fabric(hosts=1)
    kernel.put("sys/devices/css0/0.0.0001/0.0.1800/host7/fc_host/host7/port_state", "Online")
    kernel.link("sys/class/fc_host/host7", "sys/devices/css0/0.0.0001/0.0.1800/host7/fc_host/host7")
    assert [port.host for port in fc.host_ports()] == ["host3"]


async def test_a_port_that_comes_late_and_a_mapping_that_comes_late(fabric: Make) -> None:
    made = fabric({ONE: (LUN,)}, hosts=0)
    made.hidden = {("host3", ONE)}
    made.add_host("host3")
    waiting = asyncio.create_task(connector("fc").attach(wanted(ONE), deadline=30))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    made.log_in("host3", ONE)
    assert (await waiting).paths == ("sda",)
    await connector("fc").detach(wanted(ONE), deadline=5)
    made.luns[ONE] = ()
    waiting = asyncio.create_task(connector("fc").attach(wanted(ONE), deadline=30))
    await asyncio.sleep(0.1)
    made.luns[ONE] = (LUN,)
    assert (await waiting).paths == ("sdb",)  # asked again without any event


async def test_why_no_path_comes(fabric: Make) -> None:
    made = fabric({ONE: ()}, hosts=1)
    made.log_in("host3", OTHER, target=False)
    expected = rf"{ONE}: the array shows no such LUN.*; host3 {OTHER}: the port has logged in, but not as a target"
    with pytest.raises(NoFabricPath, match=expected):
        await connector("fc").attach(wanted(), deadline=0.2)
    made.lose("host3", ONE)
    with pytest.raises(NoFabricPath, match=rf"{ONE}: the port is blocked"):
        await connector("fc").attach(wanted(ONE), deadline=0.2)
    assert nothing_left(made)


async def test_a_path_that_says_why_costs_the_others_nothing(kernel: SimulatedKernel, fabric: Make) -> None:
    made = fabric({ONE: (LUN,), OTHER: (LUN,)}, hosts=2)
    made.lose("host3", OTHER)
    kernel.fail("sys/class/scsi_host/host4/scan", errno.EIO)
    clock = asyncio.get_running_loop().time
    begun = clock()
    assert (await connector("fc").attach(wanted(), deadline=60)).paths == ("sda",)
    assert clock() - begun < 2.9


async def test_only_the_promised_volume_is_handed_out(fabric: Make) -> None:
    made, hba = fabric(hosts=2, multipathd=True), connector("fc")
    for order, said in ((wanted(identity=STRANGER), "promised is"), (wanted(size=2 * SIZE), "promised are")):
        with pytest.raises(DeviceMismatch, match=said):
            await hba.attach(order, deadline=5)
        assert nothing_left(made)


async def test_a_swapped_lun_is_noticed_behind_the_kernels_memory(fabric: Make) -> None:
    """The kernel still says what was there when it looked; the array has put another volume in its place."""
    made, hba = fabric({ONE: (LUN,)}), connector("fc")
    await hba.attach(wanted(ONE), deadline=5)
    made.volumes[LUN] = Volume(STRANGER)
    with pytest.raises(DeviceMismatch, match=f"it says it is {STRANGER}"):
        await hba.attach(wanted(ONE), deadline=5)
    assert nothing_left(made)


@pytest.mark.parametrize("multipathd", [False, True])
async def test_the_leftover_of_another_volume_makes_way(fabric: Make, multipathd: bool) -> None:
    made, hba = fabric(hosts=2, multipathd=multipathd), connector("fc")
    await hba.attach(wanted(), deadline=5)
    made.volumes[LUN] = Volume(STRANGER)
    found = await hba.attach(wanted(identity=STRANGER), deadline=5)
    assert set(found.paths).isdisjoint({"sda", "sdb", "sdc", "sdd"})  # nothing of the old ones is kept, no map either
    assert len(found.paths) == 4
    assert not await hba.detach(wanted(), deadline=5)  # the first one has gone; what stands there now is not its own
    assert len(made.disks) == 4
    assert await hba.detach(wanted(identity=STRANGER), deadline=5)
    assert nothing_left(made)


async def test_another_volume_that_is_here_is_never_harmed(kernel: SimulatedKernel, fabric: Make) -> None:
    made, hba = fabric({ONE: (LUN,)}), connector("fc")
    found = await hba.attach(wanted(ONE), deadline=5)
    with pytest.raises(DeviceMismatch, match="another volume stands at its LUN"):
        await hba.attach(wanted(ONE, identity=STRANGER), deadline=5)
    assert not await hba.detach(wanted(ONE, identity=STRANGER), deadline=5)
    assert hba.present(wanted(ONE)) == found
    number = (kernel.sys / "block/sda/dev").read_text().strip()
    kernel.put("proc/self/mountinfo", f"36 35 {number} / /mnt rw - ext4 /dev/sda rw")
    made.volumes[LUN] = Volume(STRANGER)
    with pytest.raises(DeviceMismatch, match="mounted on /mnt"):
        await hba.attach(wanted(ONE, identity=STRANGER), deadline=5)
    assert len(made.disks) == 1


async def test_in_use_stays_and_names_its_user(kernel: SimulatedKernel, fabric: Make) -> None:
    made, hba = fabric({ONE: (LUN,)}), connector("fc")
    found = await hba.attach(wanted(ONE), deadline=5)
    number = (kernel.sys / "block" / found.name / "dev").read_text().strip()
    kernel.put("proc/self/mountinfo", f"36 35 {number} / /mnt rw - ext4 {found.device} rw")
    with pytest.raises(DetachIncomplete, match="mounted on /mnt"):
        await hba.detach(wanted(ONE), deadline=0.2)
    assert hba.present(wanted(ONE)) == found
    kernel.put("proc/self/mountinfo")
    assert await hba.detach(wanted(ONE), deadline=5)
    assert nothing_left(made)


@needs_node
async def test_a_path_that_a_process_has_open_is_taken_away_by_force_alone(
    kernel: SimulatedKernel, fabric: Make
) -> None:
    made, hba = fabric({ONE: (LUN,)}), connector("fc")
    found = await hba.attach(wanted(ONE), deadline=5)
    with opened(kernel.sys / "block" / found.name, kernel.proc):
        with pytest.raises(DetachIncomplete, match=r"process 4711 .qemu-system-x86"):
            await hba.detach(wanted(ONE), deadline=0.2)
        assert hba.present(wanted(ONE)) == found
        assert isinstance(hba, Cutting)
        assert await hba.cut(wanted(ONE))
        assert not await hba.cut(wanted(ONE))
    assert not await hba.detach(wanted(ONE), deadline=5)
    assert nothing_left(made)


async def test_what_this_host_runs_from_is_not_taken_away_by_force(kernel: SimulatedKernel, fabric: Make) -> None:
    _, hba = fabric({ONE: (LUN,)}), connector("fc")
    found = await hba.attach(wanted(ONE), deadline=5)
    number = (kernel.sys / "block" / found.name / "dev").read_text().strip()
    kernel.put("proc/self/mountinfo", f"36 35 {number} / /usr rw - ext4 {found.device} rw")
    assert isinstance(hba, Cutting)
    with pytest.raises(VerbRefused, match="mounted on /usr"):
        await hba.cut(wanted(ONE))
    assert hba.present(wanted(ONE)) == found
    kernel.put("proc/self/mountinfo")
    assert await hba.detach(wanted(ONE), deadline=5)


@pytest.mark.parametrize("multipathd", [False, True])
async def test_detach_when_the_array_is_gone(kernel: SimulatedKernel, fabric: Make, multipathd: bool) -> None:
    """A disk that does not answer is not flushed (its node is taken away here: to open it would fail)."""
    made, hba = fabric(hosts=2, multipathd=multipathd), connector("fc")
    await hba.attach(wanted(), deadline=5)
    for host in ("host3", "host4"):
        for wwpn in (ONE, OTHER):
            made.lose(host, wwpn)
    for node in kernel.dev.glob("sd*"):
        node.rename(node.with_name(f"gone-{node.name}"))
        node.touch(0)
    assert await hba.detach(wanted(), deadline=5)
    assert nothing_left(made)
    assert not await hba.detach(wanted(), deadline=5)


async def test_a_lost_path_refuses_a_resize_and_one_that_is_back_does_not(fabric: Make) -> None:
    made, hba = fabric(), connector("fc")
    await hba.attach(wanted(), deadline=5)
    made.volumes[LUN] = Volume(size=2 * SIZE)
    made.lose("host3", OTHER)
    with pytest.raises(PathDown, match=rf"host3 {OTHER}"):
        await hba.resize(wanted(), 2 * SIZE)
    made.come_back("host3", OTHER)
    assert (await hba.resize(wanted(), 2 * SIZE)).size == 2 * SIZE
    await hba.detach(wanted(), deadline=5)
    with pytest.raises(NotAttached):
        await hba.resize(wanted(), 2 * SIZE)


async def test_two_luns_of_one_port_do_not_disturb_each_other(fabric: Make) -> None:
    made, hba = fabric({ONE: (LUN, SECOND)}), connector("fc")
    made.volumes[SECOND] = Volume(STRANGER)
    first, second = wanted(ONE), wanted(ONE, lun=11, identity=STRANGER)
    await asyncio.gather(hba.attach(first, deadline=5), hba.attach(second, deadline=5))
    assert await hba.detach(first, deadline=5)
    assert hba.present(second) is not None
    assert await hba.detach(second, deadline=5)
    assert nothing_left(made)


async def test_only_arrays_that_root_allowed(fabric: Make) -> None:
    made = fabric({FOREIGN: (LUN,)}, scans=True)
    assert not devices.remote("sda")
    with pytest.raises(VerbRefused, match=r"5005076300ff0c8a is not among .*\[fc\] array_ports"):
        await connector("fc").attach(wanted(FOREIGN), deadline=1)
    assert len(made.disks) == 1


async def test_explained_with_ports_and_names(kernel: SimulatedKernel, fabric: Make) -> None:
    fabric({ONE: (LUN,)})
    await connector("fc").attach(wanted(ONE), deadline=5)
    kernel.link(f"dev/disk/by-path/pci-0000:00:06.0-fc-{ONE}-lun-10", "dev/sda")
    drawn = "\n".join(line for node in reached(wanted(ONE), kernel.sys) for line in live.lines(node))
    assert f"adapter host3  ({ONE}, LUN {LUN}, by scan, pci-0000:00:06.0-fc-{ONE}-lun-10)" in drawn
    assert devices.remote("sda")
