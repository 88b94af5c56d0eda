"""kill -9 of an agent while it works on encrypted volumes in Ceph: each job ends, what a server reads is compared."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.base.ids import new_id
from agent.wire.jobs import (
    ImageSource,
    JobArgs,
    LuksFormat,
    SnapshotCreate,
    SnapshotDelete,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeExtend,
    VolumeFromImage,
    VolumeRecrypt,
    VolumeReimage,
    VolumeRekey,
    WireSecret,
    request_for,
)
from tests.integration.agent.agent_process import AgentProcess, Site, finish, persist
from tests.support import ceph
from tests.support.ceph_pool import Pool, backend_table

MIB = 1 << 20
pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800), ceph.NEEDED]
CONTENT, OTHER = os.urandom(MIB) * 6 + bytes(2 * MIB), os.urandom(MIB) * 8
SIZE, LUKS = len(CONTENT), LuksFormat()
FIRST, SECOND = b"the first key", b"the second key"
Job = tuple[JobArgs, dict[str, WireSecret]]
KEYS = {"first": WireSecret.of("passphrase", FIRST), "second": WireSecret.of("passphrase", SECOND)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ceph.Cluster]:
    with ceph.running() as running:
        yield running


@dataclass
class Ctx:
    agent: AgentProcess
    pool: Pool
    volume: str = field(default_factory=new_id)
    other: str = field(default_factory=new_id)
    number: int = 0

    def image(self, content: bytes) -> ImageSource:
        """An image of the agent's own store."""
        name = new_id()
        (self.agent.state / "images" / "images" / name).write_bytes(content)
        return ImageSource(image_id=name, disk_format="raw", container_format="bare", size_bytes=len(content))

    async def done(self, *jobs: Job) -> None:
        await self.agent.start()
        async with self.agent.client() as client:
            for args, secrets in jobs:
                self.number += 1
                status = await finish(client, f"prepare-{self.number}/do/1", 1, args, **secrets)
                assert status.state == "done", status
        await self.agent.stop()

    def filled(self, *, encrypted: bool = True) -> Job:
        return from_image(self, CONTENT, encrypted=encrypted)

    def holds(self, content: bytes, key: bytes | None, volume: str = "", size: int = SIZE) -> None:
        assert self.pool.read(volume or self.volume, len(content), key) == content
        assert self.pool.usable(volume or self.volume, key) == size


@pytest.fixture
async def ctx(cluster: ceph.Cluster) -> AsyncIterator[Ctx]:
    site = Site()
    agent = AgentProcess(site, store=True)
    store = agent.state / "images"
    (store / "images").mkdir(parents=True)
    for folder in (store, store / "images"):
        os.chown(folder, *ceph.agent_account())
    with agent.config.open("a") as config:
        config.write(backend_table(cluster, site.folder))
    made = Ctx(agent, Pool(cluster, site.folder))
    yield made
    if agent.process is None or agent.process.poll() is not None:
        await agent.start()
    async with agent.client() as client:
        names = await asyncio.to_thread(made.pool.names)
        assert not [name for name in names if name.startswith("byp-")]
        jobs = [VolumeDelete(backend="ceph", volume_id=volume) for volume in (made.volume, made.other)]
        for number, args in enumerate([*jobs, SnapshotDelete(backend="ceph", snapshot_id=made.other)]):
            status = await finish(client, f"end-{number}/do/1", 1, args)
            assert status.state == "done", status
        async with asyncio.timeout(120):
            # What the life that was killed had open goes with the first look at the pool.
            while list((agent.site.folder / "work" / "ceph").glob("by*")):
                await client.report()
                await asyncio.sleep(0.2)
    assert await asyncio.to_thread(made.pool.names) == set()
    await agent.stop()
    site.remove()


def from_image(ctx: Ctx, content: bytes, *, encrypted: bool = True) -> Job:
    args = VolumeFromImage(
        backend="ceph", volume_id=ctx.volume, size_bytes=len(content), image=ctx.image(content),
        encryption=LUKS if encrypted else None,
    )  # fmt: skip
    return args, {"volume": KEYS["first"]} if encrypted else {}


@dataclass(frozen=True)
class Kind:
    """What is there before, the job that dies, and what is there at its end. `before` None: nothing."""

    job: Callable[[Ctx], Job]
    ended: Callable[[Ctx], None]
    before: bool | None = True


def _job(kind: type[Any], secrets: tuple[str, ...] = (), **more: Any) -> Callable[[Ctx], Job]:
    names = {"source": "first", "volume": "second"}
    return lambda ctx: (
        kind(backend="ceph", volume_id=ctx.volume, **more), {name: KEYS[names[name]] for name in secrets}
    )  # fmt: skip


def _clone(ctx: Ctx) -> Job:
    args = VolumeClone(
        backend="ceph", volume_id=ctx.other, size_bytes=2 * SIZE, source_volume_id=ctx.volume, encrypted=True,
        rekey=True,
    )  # fmt: skip
    return args, {"source": KEYS["first"], "volume": KEYS["second"]}


def _cloned(ctx: Ctx) -> None:
    ctx.holds(CONTENT, FIRST)
    ctx.holds(CONTENT, SECOND, ctx.other, 2 * SIZE)
    assert not ctx.pool.opens(ctx.other, FIRST)


def _rekeyed(ctx: Ctx) -> None:
    ctx.holds(CONTENT, SECOND)
    assert not ctx.pool.opens(ctx.volume, FIRST)


def _reimage(ctx: Ctx) -> Job:
    args = VolumeReimage(backend="ceph", volume_id=ctx.volume, size_bytes=SIZE, image=ctx.image(OTHER), encryption=LUKS)
    return args, {"volume": KEYS["first"]}


def _snapshot(ctx: Ctx) -> Job:
    return SnapshotCreate(backend="ceph", volume_id=ctx.volume, snapshot_id=ctx.other), {}


def _kept(ctx: Ctx) -> None:
    ctx.holds(CONTENT, FIRST)
    assert ctx.pool.raw(f"bys-{ctx.other}") == ctx.pool.raw(f"byv-{ctx.volume}")


KINDS = {
    "create": Kind(
        _job(VolumeCreate, ("volume",), size_bytes=SIZE, encryption=LUKS),
        lambda ctx: ctx.holds(b"", SECOND), before=None,
    ),
    "image": Kind(lambda ctx: from_image(ctx, CONTENT), lambda ctx: ctx.holds(CONTENT, FIRST), before=None),
    "clone": Kind(_clone, _cloned),
    "snapshot": Kind(_snapshot, _kept),
    "rekey": Kind(_job(VolumeRekey, ("source", "volume")), _rekeyed),
    "encrypt": Kind(_job(VolumeRecrypt, ("volume",), size_bytes=SIZE, encryption=LUKS),
                    lambda ctx: ctx.holds(CONTENT, SECOND), before=False),
    "decrypt": Kind(_job(VolumeRecrypt, ("source",), size_bytes=SIZE, encrypted=True),
                    lambda ctx: ctx.holds(CONTENT, None)),
    "reimage": Kind(_reimage, lambda ctx: ctx.holds(OTHER, FIRST)),
    "extend": Kind(_job(VolumeExtend, size_bytes=2 * SIZE, encrypted=True),
                   lambda ctx: ctx.holds(CONTENT, FIRST, size=2 * SIZE)),
}  # fmt: skip
POINTS = [
    ("rekey", "agent.luks.key-added"),
    ("rekey", "agent.luks.key-dropped"),
    ("encrypt", "agent.job.checkpointed"),
    ("encrypt", "agent.recrypt.decided"),
    ("encrypt", "backend.rbd.replacing"),
    ("decrypt", "agent.recrypt.copied"),
    ("decrypt", "backend.rbd.replacing"),
    ("clone", "agent.clone.copied"),
    ("clone", "agent.luks.key-added"),
    ("reimage", "agent.reimage.decided"),
    ("reimage", "backend.rbd.replacing"),
    ("image", "agent.job.checkpointed"),
    ("create", "backend.rbd.published"),
    ("snapshot", "backend.rbd.cloned"),
    ("extend", "agent.job.effect-done"),
]


async def _dies(ctx: Ctx, args: JobArgs, secrets: dict[str, WireSecret], point: str) -> None:
    await ctx.agent.start(f"testing.fault={point}")
    async with ctx.agent.client() as client:
        await asyncio.gather(client.post_job(request_for("op-1/do/1", 1, args, secrets), 10), return_exceptions=True)
    assert await ctx.agent.died(300) == -signal.SIGKILL


async def _again(ctx: Ctx, args: JobArgs, secrets: dict[str, WireSecret]) -> None:
    await ctx.agent.start()
    async with ctx.agent.client() as client:
        status = await finish(client, "op-1/do/1", 1, args, **secrets)
    assert status.state == "done", status


async def test_what_a_kill_has_left_in_the_trash_is_opened_by_no_key(ctx: Ctx) -> None:
    """An operator who brings it back finds its keys destroyed; the deletion that goes on takes it away again."""
    await ctx.done(ctx.filled())
    before = ctx.pool.raw(f"byv-{ctx.volume}", 2 * MIB)
    args = VolumeDelete(backend="ceph", volume_id=ctx.volume)
    await _dies(ctx, args, {}, "backend.rbd.trashed")
    (thrown,) = ctx.pool.thrown()
    ctx.pool.cluster.rbd("trash", "restore", "--pool", ceph.POOL, "--image-id", thrown["id"])
    after = ctx.pool.raw(f"byv-{ctx.volume}", 2 * MIB)
    used = [at for at in range(0, 2 * MIB, 4096) if before[at : at + 4096].strip(b"\0")]
    assert used
    assert not [at for at in used if before[at : at + 4096] == after[at : at + 4096]]
    await _again(ctx, args, {})
    assert ctx.pool.names() == set()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_half_made_volume_that_was_lost_is_made_anew_from_its_beginning(ctx: Ctx, encrypted: bool) -> None:
    """What a checkpoint speaks of is gone: all of the image is copied, not what is left of it."""
    content = os.urandom(MIB) * 96
    args, secrets = from_image(ctx, content, encrypted=encrypted)
    await _dies(ctx, args, secrets, "agent.job.checkpointed")
    await asyncio.to_thread(ctx.pool.removed, f"byp-{ctx.volume}")
    await _again(ctx, args, secrets)
    await asyncio.to_thread(ctx.holds, content, FIRST if encrypted else None, size=len(content))


@pytest.mark.parametrize(("kind", "point"), POINTS)
async def test_a_kill_heals(ctx: Ctx, kind: str, point: str) -> None:
    what = KINDS[kind]
    if what.before is not None:
        await ctx.done(ctx.filled(encrypted=what.before))
    args, secrets = what.job(ctx)
    status = await persist(ctx.agent, "op-1/do/1", args, [f"testing.fault={point}"], **secrets)
    assert status.state == "done", status
    await asyncio.to_thread(what.ended, ctx)


async def test_in_the_end_nothing_is_left_in_the_trash(ctx: Ctx) -> None:
    await ctx.agent.start()
    async with ctx.agent.client() as client, asyncio.timeout(240):
        # Each deletion has the agent go through it; who was killed holds an image up for a while.
        while await asyncio.to_thread(ctx.pool.thrown):
            volume = new_id()
            create = VolumeCreate(backend="ceph", volume_id=volume, size_bytes=MIB)
            await finish(client, f"a-{volume}/do/1", 1, create)
            await finish(client, f"b-{volume}/do/1", 1, VolumeDelete(backend="ceph", volume_id=volume))
    assert not ctx.pool.thrown()
