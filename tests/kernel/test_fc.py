"""A plain Fibre Channel adapter on a real kernel (FCoE in software), by the agent's own control API."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from agent.host import scsi
from agent.host.facts import host_facts
from agent.wire.jobs import (
    AttachmentApply,
    AttachmentResize,
    Connection,
    Fabric,
    FabricPort,
    Generation,
    JobStatus,
    LuksFormat,
    WantedAttachment,
    WireSecret,
)
from tests.integration.agent.agent_process import AgentProcess, Site, finish, persist
from tests.kernel.support import fcoe, initiator
from tests.kernel.support.diagnosed import doctor, explained
from tests.kernel.support.fcoe import CARDS, Disk, plain
from tests.kernel.support.holding import opened
from tests.kernel.support.initiator import sh, until
from tests.kernel.support.pair import KEY, MIB, good

MACHINE = {"nics": 3}
SIZE, LUN = 64 * MIB, 7
SERIAL, OTHER = "12345678-0001-0002-0003-000000000009", "87654321-0001-0002-0003-000000000008"
pytestmark = pytest.mark.timeout(600)


class Fc(AgentProcess):
    """The host that uses volumes of the fabric, and what it is ordered to have."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.limited(f'[block]\nroots = ["{self.volumes}"]\n[fc]\narray_ports = ["{plain(CARDS[2])}"]\n')
        self.number = 0
        self.volume, self.attachment = new_id(), new_id()
        self.encryption: LuksFormat | None = None

    def key(self) -> str:
        self.number += 1
        return f"{new_id()}/fc/1"

    def args(self, connection: Connection | None, *, force: bool = False, volume: str = "") -> AttachmentApply:
        self.number += 1
        return AttachmentApply(
            backend="files", volume_id=volume or self.volume, connection=connection, force=force,
            encryption=self.encryption,
            generation=Generation(incarnation=1, sequence=self.number),
            wanted=(WantedAttachment(attachment_id=volume or self.attachment),) if connection is not None else (),
        )  # fmt: skip

    async def apply(self, connection: Connection | None, *, force: bool = False, volume: str = "") -> JobStatus:
        """`volume`: another one than usual, whose attachment has the same id."""
        async with self.client() as told:
            args = self.args(connection, force=force, volume=volume)
            return await finish(told, self.key(), 1, args, **self.secrets)

    @property
    def secrets(self) -> dict[str, WireSecret]:
        return {"volume": KEY} if self.encryption is not None else {}

    async def attach(self, connection: Connection) -> dict[str, Any]:
        return dict(good(await self.apply(connection))["attached"][0])

    @asynccontextmanager
    async def attached(self, connection: Connection) -> AsyncIterator[dict[str, Any]]:
        yield await self.attach(connection)
        good(await self.apply(None))


@pytest.fixture(scope="module")
def host() -> Iterator[Fc]:
    with fcoe.ready(), initiator.ready(multipath=True):
        site = Site()
        made = Fc(site)
        yield made
        asyncio.run(made.kill())
        print(made.log.read_text()[-3000:])
        site.remove()


@pytest.fixture
async def agent(host: Fc) -> Fc:
    host.encryption = None
    if host.process is None or host.process.poll() is not None:
        await host.start()
    return host


@pytest.fixture
def disk(tmp_path: Path, host: Fc) -> Iterator[Disk]:
    made = Disk(tmp_path, "one", SERIAL, SIZE)
    made.map(LUN)
    yield made
    if (made.store / "enable").exists() and list(made.store.parent.parent.parent.glob("fc/*/*/lun/lun_7/one")):
        made.unmap(LUN)
    made.remove()


def wanted(disk: Disk, *, lun: int = LUN) -> Connection:
    identity = disk.identity
    ports = (FabricPort(wwpn=plain(CARDS[2]), lun=lun),)
    return Connection(protocol="fc", target=identity, identity=identity, size_bytes=SIZE, fabric=Fabric(ports=ports))


def paths(identity: str) -> int:
    over = scsi.multipath_map(identity)
    return len(over.below) if over is not None else 0


def running(identity: str) -> int:
    over = scsi.multipath_map(identity)
    return sum(scsi.path_running(name) for name in over.below) if over is not None else 0


async def test_both_ports_written_read_and_grown(agent: Fc, disk: Disk) -> None:
    async with agent.attached(wanted(disk)) as device:
        assert device["device"].startswith("/dev/dm-")
        assert paths(disk.identity) == 2
        assert set(host_facts().wwpns) == {plain(card) for card in CARDS}
        content = os.urandom(MIB)
        initiator.write(Path(device["device"]), content)
        assert disk.file.read_bytes()[:MIB] == content
        drawn, found = explained(agent, agent.volume), doctor(agent, "fabric", "attachments")
        print(drawn, found)
        assert drawn.count("by scan") == 2
        assert drawn.count("by scan, pci-") == (2 if fcoe.on_a_bus() else 0)
        assert device["device"] in drawn
        assert found.count("is online.") == 3
        assert f"ok: Array port {plain(CARDS[2])} is seen by host" in found
        assert "ok: All 1 attachments are as they should be." in found
        disk.grow(2 * SIZE)
        async with agent.client() as told:
            follow = AttachmentResize(volume_id=agent.volume, size_bytes=2 * SIZE)
            assert good(await finish(told, agent.key(), 1, follow))["sizes"] == {agent.attachment: 2 * SIZE}
            (row,) = await told.attachments()
            assert (row.state, row.protocol, len(row.paths)) == ("attached", "fc", 2)
        assert initiator.size(Path(device["device"])) == 2 * SIZE
        assert initiator.read(Path(device["device"]), MIB) == content


def formatted(disk: Disk, luks: str) -> int:
    """The disk has a header of LUKS now, as its array was given it (which has the device itself); bytes for data."""
    few = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-"]
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--type", luks, *few, str(disk.file)]
    subprocess.run(argv, input=KEY.value(), check=True)
    argv = ["cryptsetup", "open", "--readonly", "--type", "luks", "--key-file", "-", str(disk.file), "measured"]
    subprocess.run(argv, input=KEY.value(), check=True)
    try:
        return initiator.size(Path("/dev/mapper/measured"))
    finally:
        sh("cryptsetup close measured")


@pytest.mark.parametrize("luks", ["luks1", "luks2"])
async def test_encrypted_written_read_and_grown(agent: Fc, disk: Disk, luks: str) -> None:
    size = formatted(disk, luks)
    agent.encryption = LuksFormat.model_validate({"format": luks})
    async with agent.attached(wanted(disk)) as attached:
        device = Path(attached["device"])
        assert device == Path(f"/dev/mapper/brickyard-{agent.attachment}")
        assert attached["raw_device"].startswith("/dev/dm-")
        assert paths(disk.identity) == 2
        assert initiator.size(device) == size
        content = os.urandom(MIB)
        initiator.write(device, content, 8 * MIB)
        assert content[:4096] not in disk.file.read_bytes()
        disk.grow(2 * SIZE)
        async with agent.client() as told:
            follow = AttachmentResize(volume_id=agent.volume, size_bytes=2 * SIZE, encrypted=True)
            assert good(await finish(told, agent.key(), 1, follow, **agent.secrets))["sizes"] == {
                agent.attachment: size + SIZE
            }
        assert initiator.size(device) == size + SIZE
        assert initiator.read(device, MIB, 8 * MIB) == content
        with initiator.mapped(device.resolve().name):
            status = await agent.apply(None)
            assert status.state == "failed", status
        assert initiator.read(device, MIB, 8 * MIB) == content
    async with agent.attached(wanted(disk)) as attached:
        assert initiator.read(Path(attached["device"]), MIB, 8 * MIB) == content
    assert b"luks-canary" not in agent.log.read_bytes()


async def test_encrypted_and_the_array_can_not_be_reached(agent: Fc, disk: Disk) -> None:
    formatted(disk, "luks2")
    agent.encryption = LuksFormat()
    await agent.attach(wanted(disk))
    links("down")
    try:
        await asyncio.to_thread(until, lambda: running(disk.identity) == 0, 60, "the paths are still up")
        good(await agent.apply(None))
        assert not list(Path("/sys/block").glob("dm-*"))
    finally:
        links("up")
        await asyncio.to_thread(fcoe.back)


async def test_a_path_is_lost_and_comes_back(agent: Fc, disk: Disk) -> None:
    async with agent.attached(wanted(disk)) as device:
        content = os.urandom(MIB)
        initiator.write(Path(device["device"]), content)
        sh(f"ip link set {CARDS[0]} down")
        try:
            until(lambda: running(disk.identity) == 1, 60, "no path is lost")
            assert initiator.read(Path(device["device"]), MIB) == content
            initiator.write(Path(device["device"]), content, MIB)
        finally:
            sh(f"ip link set {CARDS[0]} up")
        until(lambda: fcoe.seen() == 2 and running(disk.identity) == 2, 120, "the path does not come back")


def links(state: str) -> None:
    """Of both initiators: loss of the link of the target's port is more than its kernel (tcm_fc) survives."""
    for card in CARDS[:2]:
        sh(f"ip link set {card} {state}")


async def test_all_paths_are_lost_and_io_goes_on_when_they_are_back(agent: Fc, disk: Disk) -> None:
    async with agent.attached(wanted(disk)) as device:
        content = os.urandom(MIB)
        initiator.write(Path(device["device"]), content)
        links("down")
        try:
            await asyncio.to_thread(until, lambda: running(disk.identity) == 0, 60, "the paths are still up")
            waiting = asyncio.create_task(asyncio.to_thread(initiator.read, Path(device["device"]), MIB))
        finally:
            links("up")
        assert await waiting == content
        await asyncio.to_thread(until, lambda: running(disk.identity) == 2, 120, "the paths do not come back")


async def test_detach_when_the_array_can_not_be_reached(agent: Fc, disk: Disk) -> None:
    await agent.attach(wanted(disk))
    links("down")
    try:
        await asyncio.to_thread(until, lambda: running(disk.identity) == 0, 60, "the paths are still up")
        good(await agent.apply(None))
        assert scsi.multipath_map(disk.identity) is None
        assert not list(Path("/sys/block").glob("sd*"))
    finally:
        links("up")
        await asyncio.to_thread(fcoe.back)
    async with agent.attached(wanted(disk)):  # ports that come back show what is mapped
        pass


async def swapped(agent: Fc, disk: Disk, folder: Path) -> None:
    """Another volume takes the disk's LUN: it is refused in its place, and found as itself."""
    other = Disk(folder, "two", OTHER, SIZE)
    disk.unmap(LUN)
    other.map(LUN)
    try:
        status = await agent.apply(wanted(disk))
        assert (status.state, status.error and status.error.code) == ("failed", "attachment.mismatch"), status
        good(await agent.apply(None))
        async with agent.attached(wanted(other)) as device:
            content = os.urandom(MIB)
            initiator.write(Path(device["device"]), content)
            assert other.file.read_bytes()[:MIB] == content
    finally:
        other.unmap(LUN)
        other.remove()


async def test_another_volume_in_its_place_is_refused_and_the_right_one_is_found(
    agent: Fc, disk: Disk, tmp_path: Path
) -> None:
    async with agent.attached(wanted(disk)):
        pass
    await swapped(agent, disk, tmp_path)


async def test_swapped_behind_the_kernels_memory(agent: Fc, disk: Disk, tmp_path: Path) -> None:
    """The disk of the old volume is still here, and its LUN is another volume's: never handed out as the old one."""
    ports = [place.name for place in Path("/sys/class/fc_remote_ports").glob("rport-*")]
    for host in {name.partition(":")[0].removeprefix("rport-") for name in ports}:
        sh(f"echo '- - {LUN}' > /sys/class/scsi_host/host{host}/scan", check=False)
    sh("udevadm settle")
    await swapped(agent, disk, tmp_path)


async def test_in_use_stays(agent: Fc, disk: Disk) -> None:
    device = await agent.attach(wanted(disk))
    with initiator.mapped(device["device"].removeprefix("/dev/")):
        status = await agent.apply(None)
        assert (status.state, status.error and status.error.code) == ("failed", "attachment.left-over"), status
        assert paths(disk.identity) == 2
    good(await agent.apply(None))


async def test_in_use_is_taken_away_by_force(agent: Fc, disk: Disk) -> None:
    device = await agent.attach(wanted(disk))
    with opened(Path(device["device"])):
        assert (await agent.apply(None)).state == "failed"
        good(await agent.apply(None, force=True))
        assert paths(disk.identity) == 0
    async with agent.attached(wanted(disk)) as again:
        assert initiator.read(Path(again["device"]), 4096) == b"kept" * 1024


@pytest.mark.parametrize("encryption", [None, LuksFormat()], ids=["clear", "encrypted"])
@pytest.mark.parametrize("point", ["decided", "attached"])
async def test_killed_while_attaching(host: Fc, disk: Disk, point: str, encryption: LuksFormat | None) -> None:
    await host.kill()
    if encryption is not None:
        formatted(disk, encryption.format)
    host.encryption = encryption
    sets = [f"testing.fault=agent.attachment.{point}"]
    good(await persist(host, host.key(), host.args(wanted(disk)), sets, **host.secrets))
    assert paths(disk.identity) == 2
    await host.kill()
    good(await persist(host, host.key(), host.args(None), ["testing.fault=agent.attachment.detached"]))
    assert not list(Path("/sys/block").glob("dm-*"))


async def test_its_lun_goes_away_and_comes_back_and_io_goes_on(agent: Fc, disk: Disk) -> None:
    """With everything that was mapped; the ports stay."""
    async with agent.attached(wanted(disk)) as device:
        content = os.urandom(MIB)
        initiator.write(Path(device["device"]), content)
        disk.unmap(LUN)
        waiting = asyncio.create_task(asyncio.to_thread(initiator.read, Path(device["device"]), MIB))
        await asyncio.to_thread(until, lambda: failed(disk.identity) == 2, 120, "the daemon does not see the loss")
        disk.map(LUN)
        assert await waiting == content
        await asyncio.to_thread(until, lambda: failed(disk.identity) == 0, 120, "the paths do not come back")
        initiator.write(Path(device["device"]), content, MIB)
        assert disk.file.read_bytes()[MIB : 2 * MIB] == content


def failed(identity: str) -> int:
    """Paths of the map that the kernel sends nothing to."""
    over = scsi.multipath_map(identity)
    assert over is not None
    return sh(f"dmsetup status {over.title}").split().count("F")


async def test_two_at_once(agent: Fc, disk: Disk, tmp_path: Path) -> None:
    other = Disk(tmp_path, "two", OTHER, SIZE)
    other.map(LUN + 1)
    orders = {new_id(): wanted(disk), new_id(): wanted(other, lun=LUN + 1)}
    try:
        ended = await asyncio.gather(*(agent.apply(one, volume=volume) for volume, one in orders.items()))
        for status, its in zip(ended, (disk, other), strict=True):
            device, content = Path(good(status)["attached"][0]["device"]), os.urandom(MIB)
            assert paths(its.identity) == 2
            initiator.write(device, content)
            assert its.file.read_bytes()[:MIB] == content
        for status in await asyncio.gather(*(agent.apply(None, volume=volume) for volume in orders)):
            good(status)
    finally:
        other.unmap(LUN + 1)
        other.remove()


async def test_many_times_leaves_nothing(agent: Fc, disk: Disk) -> None:
    for _ in range(3):
        async with agent.attached(wanted(disk)):
            assert paths(disk.identity) == 2
