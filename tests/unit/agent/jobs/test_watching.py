"""Devices watched while they are used, on a simulated fabric: what changes is told, and what is missing comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.base.ids import new_id
from agent.connectors.registry import connector
from agent.host import scsi
from agent.host.simulated_hba import SimulatedHbas
from agent.host.simulated_scsi import Volume
from agent.host.simulator import SimulatedKernel
from agent.jobs import desired, watching
from agent.jobs.journal import Journal
from agent.server.troubles import of_device
from agent.wire.jobs import Connection, Fabric, FabricPort, Generation
from tests.support.simulated import running_on

ONE, OTHER, LUN = "0x5005076300c20c8a", "0x5005076300c70c8a", "0x000a000000000000"
SIZE, IDENTITY, STRANGER = 1 << 30, Volume().identity, "naa.60050763000000000000000000000099"
CONNECTION = Connection(
    protocol="fc", target=IDENTITY, identity=IDENTITY, size_bytes=SIZE,
    fabric=Fabric(ports=tuple(FabricPort(wwpn=wwpn[2:], lun=10) for wwpn in (ONE, OTHER))),
)  # fmt: skip


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def fabric(tmp_path: Path, journal: Journal) -> AsyncIterator[SimulatedHbas]:
    """Attached by both ports of the array, as the journal says."""
    kernel = SimulatedKernel(_folder(tmp_path))
    with running_on(kernel, array_ports=[ONE[2:], OTHER[2:]]):
        made = SimulatedHbas(kernel, {ONE: (LUN,), OTHER: (LUN,)}, scans=False, multipathd=True)
        made.add_host("host3")
        found = await connector("fc").attach(CONNECTION, deadline=5)
        row = desired.Row(
            new_id(), new_id(), "files", Generation(incarnation=1, sequence=1), device=found.device,
            raw_device=found.device, identifiers={"connection": CONNECTION.model_dump(mode="json")}, boot_id="now",
        )  # fmt: skip
        await journal.write(lambda db: desired.put(db, [row]))
        yield made


def _folder(tmp_path: Path) -> Path:
    made = tmp_path / "kernel"
    made.mkdir()
    return made


def of(journal: Journal) -> watching.Watching:
    return watching.Watching(SimpleNamespace(journal=journal, boot_id="now"))  # type: ignore[arg-type]


async def soon(true: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.05)


async def test_a_sound_device_is_nothing_to_tell(journal: Journal, fabric: SimulatedHbas) -> None:
    watcher = of(journal)
    for afresh in (False, True):
        await watcher.round(afresh=afresh)
        assert not watcher._troubles


async def test_another_volume_behind_a_path_is_told_when_the_kernel_hears_of_a_change(
    journal: Journal, fabric: SimulatedHbas
) -> None:
    watcher = of(journal)
    watcher.start()
    try:
        await soon(lambda: bool(watcher._names))
        await asyncio.sleep(0.3)  # it listens
        fabric.volumes[LUN] = Volume(STRANGER)
        fabric.kernel.emit("change", "/devices/pci0000:00/host3/3:0:0:10", "scsi")
        await soon(lambda: bool(watcher.troubles()))
    finally:
        await watcher.stop()
    (trouble,) = watcher.troubles()
    issue = of_device(trouble)
    assert (issue.code, issue.resource) == ("attachment.changed", trouble.attachment_id)
    assert f"it says it is {STRANGER}" in issue.message
    assert "attach it again" in issue.remedy


async def test_a_smaller_volume_is_told_and_a_grown_one_is_not(journal: Journal, fabric: SimulatedHbas) -> None:
    watcher = of(journal)
    fabric.volumes[LUN] = Volume(size=2 * SIZE)
    await connector("fc").resize(CONNECTION, 2 * SIZE)
    await watcher.round(afresh=True)
    assert not watcher.troubles()
    fabric.volumes[LUN] = Volume(size=SIZE)
    await watcher.round(afresh=True)
    (trouble,) = watcher.troubles()
    assert f"has {SIZE} bytes, the map over it {2 * SIZE}" in " ".join(trouble.reasons)
    fabric.volumes[LUN] = Volume(size=2 * SIZE)
    await watcher.round(afresh=True)
    assert not watcher.troubles()


async def test_a_path_that_stays_away_is_told_after_a_moment(
    journal: Journal, fabric: SimulatedHbas, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = of(journal)
    fabric.lose("host3", OTHER)
    await watcher.round()
    assert not watcher.troubles()
    monkeypatch.setattr(watching, "PATIENCE_S", 0.0)
    (trouble,) = watcher.troubles()
    assert trouble.reasons == (f"host3 {OTHER} is blocked",)
    began = trouble.since
    time.sleep(0.01)
    await watcher.round()
    assert watcher.troubles()[0].since == began
    fabric.come_back("host3", OTHER)
    await watcher.round()
    assert not watcher.troubles()


async def test_a_path_that_was_down_at_the_attach_is_made_by_an_agent_that_was_restarted(
    journal: Journal, fabric: SimulatedHbas
) -> None:
    fabric.lose("host3", OTHER, "Not Present")
    assert len(fabric.disks) == 1
    watcher = of(journal)
    await watcher.round()
    assert len(fabric.disks) == 1
    fabric.kernel.put("sys/class/fc_remote_ports/rport-3:0-1/port_state", "Online")
    again = of(journal)
    await again.round()
    assert len(fabric.disks) == 2
    over = scsi.multipath_map(IDENTITY, fabric.kernel.sys)
    assert over is not None
    assert len(over.below) == 2
    await again.round()
    assert not again._troubles


async def test_a_path_to_another_volume_is_not_let_in(journal: Journal, fabric: SimulatedHbas) -> None:
    fabric.lose("host3", OTHER, "Not Present")
    fabric.volumes[LUN] = Volume(STRANGER)
    fabric.kernel.put("sys/class/fc_remote_ports/rport-3:0-1/port_state", "Online")
    await of(journal).round()
    assert len(fabric.disks) == 1


async def test_what_is_detached_is_not_looked_at(journal: Journal, fabric: SimulatedHbas) -> None:
    await connector("fc").detach(CONNECTION, deadline=5)
    watcher = of(journal)
    await watcher.round(afresh=True)
    assert not watcher._troubles
    assert not fabric.disks
