"""The back end `smb` on a real Samba server: by content, attached, unmounted, with a server that hangs or restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.backends.base import CloneSource
from agent.backends.config import SmbBackendConfig
from agent.backends.errors import NotMounted
from agent.backends.share import ShareBackend
from agent.base.ids import new_id
from agent.host import sysfs
from agent.wire.client import AgentClient
from agent.wire.jobs import (
    AttachmentApply,
    Generation,
    JobArgs,
    JobStatus,
    SnapshotCreate,
    SnapshotDelete,
    VolumeCreate,
    VolumeDelete,
    VolumeExtend,
    WantedAttachment,
)
from tests.integration.agent.agent_process import AgentProcess, Site, finish
from tests.kernel.support import initiator, samba, shares
from tests.kernel.support.pair import MIB, good

KINDS = pytest.mark.parametrize("kind", samba.KINDS)


@pytest.fixture(scope="module")
def server() -> Iterator[samba.Samba]:
    with samba.served() as made:
        yield made


@pytest.fixture
def kind() -> str:
    return "plain"


@pytest.fixture
def point(server: samba.Samba, kind: str) -> Iterator[Path]:
    place = server.folder / "point"
    place.mkdir()
    server.mount(kind, place)
    yield place
    with contextlib.suppress(AssertionError):
        initiator.sh(f"umount --force --lazy {place}")
    place.rmdir()


def made(point: Path, kind: str = "plain", **keys: object) -> ShareBackend:
    return ShareBackend("share", SmbBackendConfig.model_validate(
        {"driver": "smb", "path": str(point), "share": samba.source(kind), **keys}))  # fmt: skip


@KINDS
async def test_the_life_of_volumes(point: Path, server: samba.Samba, kind: str) -> None:
    backend = made(point, kind)
    one, two, snap = (new_id() for _ in range(3))
    part = os.urandom(MIB)
    data = part + bytes(4 * MIB) + part + bytes(2 * MIB)
    path = await backend.prepare(one, 8 * MIB)
    with path.open("r+b") as out:
        for place in (0, 5 * MIB):
            out.seek(place)
            out.write(part)
    await backend.publish(one)
    assert await backend.snapshot(one, snap) == 8 * MIB
    await backend.clone(two, 10 * MIB, CloneSource("snapshot", snap))
    await backend.extend(one, 12 * MIB)
    assert (server.folder / kind / "volumes" / two).read_bytes() == data + bytes(2 * MIB)
    with path_of(point, one).open("r+b") as out:
        out.write(bytes(MIB))
    assert await backend.revert(two, await snapped(backend, two)) == 10 * MIB
    assert path_of(point, two).read_bytes() == data + bytes(2 * MIB)
    (pool,) = await backend.pools()
    assert (pool.driver, pool.reflink) == ("smb", kind == "sharing")
    for held in await backend.inventory():
        await (backend.delete if held.kind == "volume" else backend.delete_snapshot)(held.id)
    assert await backend.inventory() == []
    assert await backend.issues() == []
    backend.close()


def path_of(point: Path, volume: str) -> Path:
    return point / "volumes" / volume


async def snapped(backend: ShareBackend, volume: str) -> str:
    snapshot = new_id()
    await backend.snapshot(volume, snapshot)
    return snapshot


async def test_two_open_one_share_at_once(point: Path) -> None:
    backends = [made(point, cluster_name="c1") for _ in range(4)]
    pools = await asyncio.gather(*(backend.pools() for backend in backends))
    assert [pool.reflink for (pool,) in pools] == [False] * 4
    for backend in backends:
        assert await backend.inventory() == []
        backend.close()


async def test_without_the_share_nothing_is_written_below_its_place(point: Path, server: samba.Samba) -> None:
    await shares.is_missed(
        made(point), point, lambda: initiator.sh(f"umount --lazy {point}"), lambda: server.mount("plain", point)
    )


async def test_another_share_at_its_place_is_not_taken(point: Path) -> None:
    with pytest.raises(NotMounted):
        await made(point, "sharing").create(new_id(), MIB)


async def test_a_server_that_hangs_costs_nobody_else_and_work_goes_on_when_it_is_back(
    point: Path, server: samba.Samba
) -> None:
    await shares.hangs(made(point, deadline_s=15.0), server.pause, server.go_on, within=10.0)


class Host(AgentProcess):
    """An agent that has the share beside its own folder, and one volume."""

    def __init__(self, site: Site, point: Path, kind: str) -> None:
        super().__init__(site)
        self.volume, self.attachment, self.number = new_id(), new_id(), 0
        with self.config.open("a") as config:
            config.write(f'[backends.share]\ndriver = "smb"\npath = "{point}"\nshare = "{samba.source(kind)}"\n')
            config.write("deadline_s = 15.0\n")

    async def does(self, told: AgentClient, args: JobArgs) -> JobStatus:
        self.number += 1
        return await finish(told, f"{new_id()}/smb/1", 1, args)

    async def attach(self, told: AgentClient, *wanted: str) -> JobStatus:
        args = AttachmentApply(
            backend="share", volume_id=self.volume, generation=Generation(incarnation=1, sequence=self.number + 1),
            wanted=tuple(WantedAttachment(attachment_id=one) for one in wanted),
        )  # fmt: skip
        return await self.does(told, args)

    @asynccontextmanager
    async def attached(self, told: AgentClient) -> AsyncIterator[Path]:
        create = VolumeCreate(backend="share", volume_id=self.volume, size_bytes=16 * MIB)
        good(await self.does(told, create))
        result = good(await self.attach(told, self.attachment))
        yield Path(result["attached"][0]["device"])
        good(await self.attach(told))
        good(await self.does(told, VolumeDelete(backend="share", volume_id=self.volume)))


@pytest.fixture
async def host(point: Path, kind: str) -> AsyncIterator[Host]:
    site = Site()
    agent = Host(site, point, kind)
    await agent.start()
    yield agent
    await agent.kill()
    site.remove()


@KINDS
async def test_attached_written_read_grown_and_snapped(host: Host, server: samba.Samba, kind: str) -> None:
    """A volume in use is snapped where the share's files can share data; where they can not, that is refused."""
    kept, content = server.folder / kind / "volumes" / host.volume, os.urandom(MIB)
    async with host.client() as told:
        async with host.attached(told) as device:
            initiator.write(device, content, 4 * MIB)
            grow = VolumeExtend(backend="share", volume_id=host.volume, size_bytes=32 * MIB)
            good(await host.does(told, grow))
            assert initiator.size(device) == 32 * MIB
            initiator.write(device, content, 31 * MIB)
            assert kept.read_bytes() == bytes(4 * MIB) + content + bytes(26 * MIB) + content
            snapshot = new_id()
            snap = SnapshotCreate(backend="share", volume_id=host.volume, snapshot_id=snapshot)
            status = await host.does(told, snap)
            if kind == "plain":
                assert status.error is not None
                assert (status.error.code, host.attachment in status.error.message) == ("volume.written", True)
            else:
                good(status)
                initiator.write(device, bytes(MIB), 4 * MIB)
                assert (kept.parents[1] / "snapshots" / snapshot).read_bytes()[4 * MIB : 5 * MIB] == content
                good(await host.does(told, SnapshotDelete(backend="share", snapshot_id=snapshot)))
            good(await host.attach(told))
            (again,) = good(await host.attach(told, host.attachment))["attached"]
            assert initiator.read(Path(again["device"]), MIB, 31 * MIB) == content
        assert not kept.exists()
        assert await told.inventory() == ([], {})
    assert not [one for one in sysfs.loop_devices() if host.volume in one.backing_file]


async def test_a_server_that_hangs_does_not_hang_the_agent(host: Host, server: samba.Samba) -> None:
    content = os.urandom(MIB)
    async with host.client() as told, host.attached(told) as device:
        initiator.write(device, content)
        other = VolumeCreate(backend="share", volume_id=new_id(), size_bytes=MIB)
        server.pause()
        try:
            writing = asyncio.create_task(asyncio.to_thread(initiator.write, device, content, MIB))
            refused = await host.does(told, other)
            assert refused.error is not None
            assert refused.error.code == "backend.share-hangs"
            local = VolumeCreate(backend="files", volume_id=new_id(), size_bytes=MIB)
            good(await host.does(told, local))
            good(await host.does(told, VolumeDelete(backend="files", volume_id=local.volume_id)))
            assert [row.state for row in await told.attachments()] == ["attached"]
            assert not writing.done()
        finally:
            server.go_on()
        await writing
        assert (server.folder / "plain/volumes" / host.volume).read_bytes()[: 2 * MIB] == 2 * content
        async with asyncio.timeout(300):
            while (await host.does(told, other)).state != "done":
                await asyncio.sleep(0.5)
        good(await host.does(told, VolumeDelete(backend="share", volume_id=other.volume_id)))


async def test_a_server_that_is_started_anew_is_gone_on_with(host: Host, server: samba.Samba) -> None:
    content = os.urandom(MIB)
    async with host.client() as told, host.attached(told) as device:
        initiator.write(device, content)
        server.stop()
        try:
            writing = asyncio.create_task(asyncio.to_thread(initiator.write, device, content, MIB))
            await asyncio.sleep(2)
            assert not writing.done()
        finally:
            server.start()
        await writing
        assert initiator.read(device, MIB, MIB) == content
        assert (server.folder / "plain/volumes" / host.volume).read_bytes()[: 2 * MIB] == 2 * content


def test_the_password_is_in_its_file_alone(point: Path, server: samba.Samba) -> None:
    assert server.credentials.stat().st_mode & 0o777 == 0o600
    seen = [Path("/proc/self/mountinfo"), *Path("/proc").glob("[0-9]*/cmdline"), server.folder / "log"]
    for path in seen:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            assert samba.PASSWORD.encode() not in path.read_bytes(), path
