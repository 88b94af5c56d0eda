"""The back end `lvm` on a real volume group: thin and thick, by content, and what must never happen."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.backends.base import CloneSource, Work
from agent.backends.config import LvmBackendConfig
from agent.backends.errors import NoSpace, NotAdoptable, PoolNearlyFull, ShrinkRefused, VolumeExists, VolumeNotFound
from agent.backends.lvm_abilities import WholeLvmBackend
from agent.base.ids import new_id
from agent.connectors import local
from agent.connectors.errors import DetachIncomplete
from agent.copying.errors import CopyCancelled
from agent.copying.model import Checkpoint, CopyOptions, CopyProgress
from agent.host import lvm as names
from agent.host import sysfs
from agent.privsep import limits, lvmtool, start
from agent.privsep import lvm as verbs
from agent.privsep.client import call
from agent.privsep.errors import GroupMissing, VerbRefused
from tests.kernel.lvm_support import GIB, GROUP, MIB, digest, listed, put, tool, volume_group, zeros


@pytest.fixture(scope="module")
def group(disks: tuple[Path, ...]) -> Iterator[str]:
    with volume_group(disks[0]) as made:
        start.start_direct(roots=[], groups=[made])
        yield made


@pytest.fixture
def thin(group: str) -> Iterator[WholeLvmBackend]:
    tool("lvcreate", "--yes", "--type", "thin-pool", "-L", "256M", "-n", "pool", group)
    yield WholeLvmBackend("thin", LvmBackendConfig(driver="lvm", group=group, pool="pool", autoextend_percent=100))
    tool("lvremove", "--yes", f"{group}/pool")


@pytest.fixture
def thick(group: str) -> Iterator[WholeLvmBackend]:
    yield WholeLvmBackend("thick", LvmBackendConfig(driver="lvm", group=group))
    assert set(listed()) <= {"pool"}


async def test_reports_for_the_parser(thin: WholeLvmBackend, thick: WholeLvmBackend, tmp_path: Path) -> None:
    """What the parser's tests were captured from; kept so that another release of LVM can be captured."""
    out = Path(os.environ.get("BRICKYARD_OUT", tmp_path))
    volume, snapshot, half, other = (new_id() for _ in range(4))
    await thin.create(volume, 64 * MIB)
    put(await thin.path(volume), b"x" * (20 * MIB))
    await thin.snapshot(volume, snapshot)
    await thin.prepare(half, 8 * MIB)
    await thick.create(other, 5 * MIB)
    tool("lvcreate", "--yes", "-L", "4M", "-n", "plain", GROUP)
    (out / "thin.json").write_text(await call(verbs.lvm_report, GROUP))
    tool("lvremove", "--yes", f"{GROUP}/plain")
    await thick.delete(other)
    for ident in (volume, half):
        await thin.delete(ident)
    await thin.delete_snapshot(snapshot)
    tool("lvremove", "--yes", f"{GROUP}/pool")
    (out / "empty.json").write_text(await call(verbs.lvm_report, GROUP))
    tool("lvcreate", "--yes", "--type", "thin-pool", "-L", "64M", "-n", "pool", GROUP)


async def fresh_bytes(backend: WholeLvmBackend, size: int) -> None:
    ident = new_id()
    await backend.create(ident, size)
    await backend.create(ident, size)
    assert await backend.size(ident) == size
    assert digest(await backend.path(ident), size) == zeros(size)
    with pytest.raises(VolumeExists):
        await backend.create(ident, 2 * size)
    await backend.delete(ident)
    await backend.delete(ident)
    assert await backend.size(ident) is None


async def test_a_new_volume_reads_zero_thin(thin: WholeLvmBackend) -> None:
    await fresh_bytes(thin, 8 * MIB)


async def test_a_new_volume_reads_zero_thick(thick: WholeLvmBackend) -> None:
    await fresh_bytes(thick, 9 * MIB + 512)


async def life(backend: WholeLvmBackend) -> None:
    one, two, three, snap = (new_id() for _ in range(4))
    data = os.urandom(5 * MIB)
    size = 8 * MIB + 4096  # not whole extents
    path = await backend.prepare(one, size)
    assert await backend.prepared(one) == size
    assert await backend.size(one) is None
    put(path, data)
    await backend.publish(one)
    await backend.publish(one)
    assert await backend.snapshot(one, snap) == size
    assert await backend.snapshot(one, snap) == size
    put(await backend.path(one), bytes(MIB))
    await backend.clone(two, 12 * MIB, CloneSource("snapshot", snap))
    await backend.clone(three, size, CloneSource("volume", one))
    wanted = hashlib.sha256(data + bytes(12 * MIB - 5 * MIB)).hexdigest()
    assert digest(await backend.path(two), 12 * MIB) == wanted
    assert digest(await backend.path(three), size) == digest(await backend.path(one), size)
    await backend.extend(three, 21 * MIB)
    await backend.extend(three, 21 * MIB)
    with pytest.raises(ShrinkRefused):
        await backend.extend(three, size)
    grown = hashlib.sha256(bytes(MIB) + data[MIB:] + bytes(16 * MIB)).hexdigest()
    assert digest(await backend.path(three), 21 * MIB) == grown
    held = {(one.kind, one.id): one.device_bytes for one in await backend.inventory()}
    assert held == {("volume", one): size, ("volume", two): 12 * MIB, ("volume", three): 21 * MIB,
                    ("snapshot", snap): size}  # fmt: skip
    await backend.delete(one)
    assert digest(await backend.source_path(CloneSource("snapshot", snap)), 5 * MIB) == hashlib.sha256(data).hexdigest()
    await backend.delete_snapshot(snap)
    await backend.delete(two)
    await backend.delete(three)
    assert await backend.inventory() == []


async def test_life_of_thin_volumes(thin: WholeLvmBackend) -> None:
    await life(thin)


async def test_life_of_thick_volumes(thick: WholeLvmBackend) -> None:
    await life(thick)


async def back_and_forth(backend: WholeLvmBackend) -> None:
    one, snap, taken = (new_id() for _ in range(3))
    size, data = 4 * MIB + 512, os.urandom(MIB)
    await backend.create(one, size)
    put(await backend.path(one), data)
    await backend.snapshot(one, snap)
    put(await backend.path(one), bytes(MIB))
    assert await backend.revert(one, snap) == size
    await backend.replace(one)
    assert digest(await backend.path(one), MIB) == hashlib.sha256(data).hexdigest()
    await backend.delete_snapshot(snap)
    name = await backend.release("volume", one)
    assert await backend.release("volume", one) == name
    (foreign,) = [found for found in await backend.foreign() if found.name == name]
    assert (foreign.kind, foreign.reason, foreign.size_bytes) == ("volume", "", 8 * MIB)
    with pytest.raises(NotAdoptable):
        await backend.adopt("volume", taken, name, MIB)
    await backend.adopt("volume", taken, name, 8 * MIB)
    await backend.adopt("volume", taken, name, 8 * MIB)
    assert digest(await backend.path(taken), MIB) == hashlib.sha256(data).hexdigest()
    path = await backend.prepare_anew(taken, 8 * MIB)
    put(path, b"new" * 1000)
    await backend.replace(taken)
    assert digest(await backend.path(taken), 3000) == hashlib.sha256(b"new" * 1000).hexdigest()
    await backend.delete(taken)
    assert await backend.inventory() == []


async def test_revert_release_adopt_and_new_content_thin(thin: WholeLvmBackend) -> None:
    await back_and_forth(thin)


async def test_revert_release_adopt_and_new_content_thick(thick: WholeLvmBackend) -> None:
    await back_and_forth(thick)


async def test_a_half_made_volume_can_be_dropped_and_is_no_volume(thick: WholeLvmBackend) -> None:
    ident = new_id()
    await thick.prepare(ident, 4 * MIB)
    assert [(one.kind, one.id) for one in await thick.inventory()] == [("leftover", ident)]
    with pytest.raises(VolumeNotFound):
        await thick.path(ident)
    await thick.discard(ident)
    await thick.discard(ident)
    with pytest.raises(VolumeNotFound):
        await thick.publish(ident)


async def _forget(_: int) -> None:
    return None


async def test_a_wipe_goes_on_where_it_was_killed(thick: WholeLvmBackend) -> None:
    ident, saved = new_id(), [0]
    await thick.create(ident, 64 * MIB)
    put(await thick.path(ident), b"secret" * 1000, 40 * MIB)
    cancel = asyncio.Event()

    async def save(done: int) -> None:
        saved.append(done)
        cancel.set()

    seen: list[CopyProgress] = []
    work = Work(CopyOptions(checkpoint_every=8 * MIB, rate_limit=256 * MIB), seen.append, Checkpoint(0, save), cancel)
    with pytest.raises(CopyCancelled):
        await thick.delete(ident, work)
    assert await thick.size(ident) is None
    assert [one.kind for one in await thick.inventory()] == ["leftover"]
    stopped = saved[-1]
    assert 0 < stopped < 64 * MIB
    again: list[CopyProgress] = []
    go_on = replace(work, progress=again.append, checkpoint=Checkpoint(stopped, _forget), cancel=asyncio.Event())
    await thick.delete(ident, go_on)
    assert again[0].done > stopped
    assert listed() == []


async def test_what_does_not_fit_is_refused_and_leaves_nothing(thick: WholeLvmBackend, thin: WholeLvmBackend) -> None:
    before = listed()
    with pytest.raises(NoSpace):
        await thick.create(new_id(), 100 * GIB)
    with pytest.raises(Exception, match="promise"):
        await thin.create(new_id(), 100 * GIB)
    assert listed() == before
    tool("lvremove", "--yes", f"{GROUP}/pool")
    tool("lvcreate", "--yes", "--type", "thin-pool", "-L", "64M", "-n", "pool", GROUP)


async def test_a_nearly_full_pool_makes_nothing_new_and_says_so(thin: WholeLvmBackend) -> None:
    ident = new_id()
    await thin.create(ident, 300 * MIB)
    path = await thin.path(ident)
    for offset in range(0, 236 * MIB, 4 * MIB):
        put(path, b"x" * (4 * MIB), offset)
    (pool,) = await thin.pools()
    assert pool.data_percent is not None
    await thin.inventory()
    with pytest.raises(PoolNearlyFull):
        await thin.create(new_id(), 4 * MIB)
    with pytest.raises(PoolNearlyFull):
        await thin.snapshot(ident, new_id())
    (trouble,) = await thin.issues()
    assert trouble.code == "backend.pool-full"
    # A full pool refuses writes at once instead of hanging whoever writes.
    with pytest.raises(OSError, match=r"space|I/O|Input"):
        put(path, b"y" * (64 * MIB), 236 * MIB)
    await thin.delete(ident)


async def test_a_pool_is_grown_from_its_group_at_the_mark(group: str) -> None:
    tool("lvcreate", "--yes", "--type", "thin-pool", "-L", "64M", "-n", "pool", group)
    config = LvmBackendConfig(driver="lvm", group=group, pool="pool", autoextend_percent=50, autoextend_by_percent=50)
    backend, ident = WholeLvmBackend("thin", config), new_id()
    await backend.create(ident, 128 * MIB)
    put(await backend.path(ident), b"x" * (48 * MIB))
    await backend.inventory()
    (pool,) = await backend.pools()
    assert pool.total_bytes == 96 * MIB
    tool("lvremove", "--yes", f"{group}/pool")


async def test_a_huge_thin_volume_goes_quickly(thin: WholeLvmBackend) -> None:
    backend = WholeLvmBackend("thin", thin._config.model_copy(update={"max_over_subscription": 1000.0}))
    ident = new_id()
    await backend.create(ident, 100 * GIB)
    path = await backend.path(ident)
    for offset in range(0, 100 * GIB, 4 * GIB):
        put(path, b"z" * MIB, offset)
    began = asyncio.get_running_loop().time()
    await backend.delete(ident)
    took = asyncio.get_running_loop().time() - began
    (Path(os.environ.get("BRICKYARD_OUT", "/tmp")) / "delete.txt").write_text(f"100 GiB thin: {took:.2f} s\n")
    assert took < 20


async def attached_life(backend: WholeLvmBackend) -> None:
    volume, attachment, other = new_id(), new_id(), new_id()
    size = 10 * MIB + 1536
    await backend.create(volume, size)
    device = await local.attach(await backend.path(volume), attachment, size)
    assert Path(device.device).is_block_device()
    assert device.size == size
    assert await local.attach(await backend.path(volume), attachment, size) == device
    read_only = await local.attach(await backend.path(volume), other, size, True)
    put(Path(device.device), b"hello" * 1000)
    assert digest(Path(read_only.device), size) == digest(await backend.path(volume), size)
    with pytest.raises(OSError, match=r"permitted|Read-only"):
        put(Path(read_only.device), b"no")
    assert {one.attachment_id for one in await local.current()} == {attachment, other}
    assert await backend.holders(volume, writers=False)
    with pytest.raises(Exception, match="in use"):
        await backend.delete(volume)
    assert await backend.size(volume) == size
    assert await local.detach(other)
    await backend.extend(volume, 14 * MIB)
    assert (await local.resize(attachment, 14 * MIB)).size == 14 * MIB
    held = os.open(device.device, os.O_RDONLY)
    with pytest.raises(DetachIncomplete):
        await local.detach(attachment)
    os.close(held)
    assert await local.detach(attachment)
    assert not await local.detach(attachment)
    title = names.mapper_title(GROUP, names.volume_name("volume", volume))
    assert sysfs.mapper_device(title) is None
    assert await local.current() == ()
    await backend.delete(volume)


async def test_attach_and_detach_of_a_thin_volume(thin: WholeLvmBackend) -> None:
    await attached_life(thin)


async def test_attach_and_detach_of_a_thick_volume(thick: WholeLvmBackend) -> None:
    await attached_life(thick)


async def test_a_guests_volume_group_and_partitions_stay_the_guests(thin: WholeLvmBackend) -> None:
    """The attached volume holds a volume group of the very same name, and a partition table behind it."""
    volume, attachment = new_id(), new_id()
    await thin.create(volume, 64 * MIB)
    device = await local.attach(await thin.path(volume), attachment, 64 * MIB)
    inside = ["--devices", device.device]
    tool("pvcreate", "--yes", *inside, device.device)
    tool("vgcreate", *inside, "guest", device.device)
    tool("lvcreate", "--yes", *inside, "-L", "8M", "-n", "data", "guest")
    tool("vgchange", *inside, "-an", "guest")
    tool("vgrename", *inside, "guest", GROUP + "x")
    assert await local.detach(attachment)
    again = await local.attach(await thin.path(volume), attachment, 64 * MIB)
    tool("udevadm", "trigger", "--settle", "--action=change", again.device)
    assert names.mapper_title(GROUP + "x", "data") not in tool("dmsetup", "ls")
    assert await thin.size(volume) == 64 * MIB
    assert await local.detach(attachment)
    await thin.delete(volume)


async def test_a_guests_group_of_our_name_is_never_taken_for_ours(thin: WholeLvmBackend, tmp_path: Path) -> None:
    volume, attachment, other = new_id(), new_id(), new_id()
    await thin.create(volume, 64 * MIB)
    device = await local.attach(await thin.path(volume), attachment, 64 * MIB)
    inside = ["--devices", device.device]
    tool("pvcreate", "--yes", *inside, device.device)
    # A guest has a /dev of its own, where that name is free.
    tool("vgcreate", "--config", f'devices {{ dir = "{tmp_path}/" }}', *inside, GROUP, device.device)
    lvmtool.forget(GROUP)
    await thin.create(other, 8 * MIB)
    assert await thin.size(other) == 8 * MIB
    assert await local.detach(attachment)
    for ident in (volume, other):
        await thin.delete(ident)


async def test_groups_that_are_not_allowed_or_not_there(group: str) -> None:
    with pytest.raises(VerbRefused):
        await WholeLvmBackend("x", LvmBackendConfig(driver="lvm", group="other")).create(new_id(), MIB)
    limits.use(replace(limits.current(), groups=(GROUP, "nowhere")))
    backend = WholeLvmBackend("x", LvmBackendConfig(driver="lvm", group="nowhere"))
    with pytest.raises(GroupMissing):
        await backend.pools()
    assert [one.code for one in await backend.issues()] == ["lvm.group-missing"]
    limits.use(replace(limits.current(), groups=(GROUP,)))


async def test_names_are_checked_again_on_the_other_side(group: str) -> None:
    ident = new_id()
    for args in (
        (group, "--help", "volume", ident, MIB),
        (group, "byv-" + ident, "volume", ident, MIB),
        (group, None, "pool", ident, MIB),
        (group, None, "volume", "../" + ident, MIB),
        (group, None, "volume", ident, MIB + 1),
        (group, None, "volume", ident, -512),
        ("-v", None, "volume", ident, MIB),
    ):
        with pytest.raises(VerbRefused):
            await call(verbs.lvm_create, *args)  # type: ignore[arg-type]
