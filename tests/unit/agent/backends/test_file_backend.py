"""The file back end on a real folder."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest
from blockbuster import blockbuster_ctx

from agent.backends.base import Backend, CloneSource, Work
from agent.backends.config import FileBackendConfig
from agent.backends.errors import (
    NoPermission,
    OverSubscribed,
    ShrinkRefused,
    VolumeExists,
    VolumeNotFound,
)
from agent.backends.file import FileBackend
from agent.base.errors import Invalid
from agent.base.ids import new_id
from agent.copying import engine
from agent.copying.errors import CopyCancelled, NotShared
from agent.copying.model import Checkpoint, CopyOptions

MIB = 1 << 20


@pytest.fixture
def root(tmp_path):
    return tmp_path / "vol"


@pytest.fixture
def backend(root):
    opened = FileBackend("fast", FileBackendConfig(path=root))
    yield opened
    opened.close()


def fill(path, data=b"brick" * 100_000, at=0):
    with open(path, "r+b") as out:
        out.seek(at)
        out.write(data)


def files(root):
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


def test_it_is_a_backend(backend):
    def takes(_: Backend) -> None: ...

    takes(backend)
    assert {name for name in vars(Backend) if not name.startswith("_")} <= set(dir(backend))


async def test_create_extend_delete_are_idempotent(backend, root):
    volume = new_id()
    for _ in range(2):
        await backend.create(volume, 10 * MIB)
    path = await backend.path(volume)
    status = path.stat()
    assert (status.st_size, status.st_blocks, stat.S_IMODE(status.st_mode)) == (10 * MIB, 0, 0o600)
    fill(path)
    await backend.create(volume, 10 * MIB)
    assert path.read_bytes().startswith(b"brick")
    with pytest.raises(VolumeExists):
        await backend.create(volume, 11 * MIB)
    for _ in range(2):
        await backend.extend(volume, 12 * MIB + 512)
    assert await backend.size(volume) == 12 * MIB + 512
    with pytest.raises(ShrinkRefused):
        await backend.extend(volume, 12 * MIB)
    assert (await backend.pool()).allocated_bytes == 12 * MIB + 512
    for _ in range(2):
        await backend.delete(volume)
    assert await backend.size(volume) is None
    assert (await backend.pool()).allocated_bytes == 0
    assert files(root) == set()
    with pytest.raises(VolumeNotFound):
        await backend.path(volume)
    with pytest.raises(VolumeNotFound):
        await backend.extend(volume, MIB)


async def test_prepare_publish_discard(backend, root):
    volume = new_id()
    path = await backend.prepare(volume, 4 * MIB)
    assert await backend.size(volume) is None
    fill(path)
    assert await backend.prepare(volume, 4 * MIB) == path
    assert path.read_bytes().startswith(b"brick")
    assert await backend.prepared(volume) == 4 * MIB
    for _ in range(2):
        await backend.publish(volume)
    assert (await backend.path(volume)).read_bytes().startswith(b"brick")
    assert await backend.prepared(volume) is None
    assert (await backend.pool()).allocated_bytes == 4 * MIB
    with pytest.raises(VolumeExists):
        await backend.prepare(volume, 4 * MIB)
    other = new_id()
    fill(await backend.prepare(other, MIB))
    assert not (await backend.prepare(other, 2 * MIB)).read_bytes().strip(b"\0")
    for _ in range(2):
        await backend.discard(other)
    with pytest.raises(VolumeNotFound):
        await backend.publish(other)
    assert files(root) == {f"volumes/{volume}"}


async def test_snapshot_and_clone(backend, root):
    volume, snapshot, first, second = new_id(), new_id(), new_id(), new_id()
    await backend.create(volume, 8 * MIB)
    fill(await backend.path(volume), at=3 * MIB)
    before = (await backend.path(volume)).read_bytes()
    assert await backend.snapshot(volume, snapshot) == 8 * MIB
    fill(await backend.path(volume), b"changed", at=3 * MIB)
    assert await backend.snapshot(volume, snapshot) == 8 * MIB
    for _ in range(2):
        await backend.clone(first, 9 * MIB, CloneSource("snapshot", snapshot))
    await backend.clone(second, 8 * MIB, CloneSource("volume", volume))
    assert (await backend.path(first)).read_bytes() == before + bytes(MIB)
    assert (await backend.path(second)).read_bytes() == (await backend.path(volume)).read_bytes()
    assert (await backend.path(second)).stat().st_blocks * 512 < 2 * MIB
    with pytest.raises(ShrinkRefused):
        await backend.clone(new_id(), 7 * MIB, CloneSource("snapshot", snapshot))
    with pytest.raises(VolumeNotFound):
        await backend.clone(new_id(), 8 * MIB, CloneSource("snapshot", volume))
    held = {(h.kind, h.id): h.device_bytes for h in await backend.inventory()}
    assert held == {
        ("volume", volume): 8 * MIB,
        ("volume", first): 9 * MIB,
        ("volume", second): 8 * MIB,
        ("snapshot", snapshot): 8 * MIB,
    }
    assert (await backend.pool()).allocated_bytes == 33 * MIB
    for _ in range(2):
        await backend.delete_snapshot(snapshot)
    assert (await backend.pool()).allocated_bytes == 25 * MIB


async def test_cancelled_clone_leaves_nothing(backend, root):
    volume, copy = new_id(), new_id()
    await backend.create(volume, 8 * MIB)
    fill(await backend.path(volume), os.urandom(8 * MIB))
    work = Work(CopyOptions(rate_limit=MIB, reflink=False))
    task = asyncio.create_task(backend.clone(copy, 8 * MIB, CloneSource("volume", volume), work))
    await asyncio.sleep(0.2)
    assert f"partial/{copy}" in files(root)
    work.cancel.set()
    with pytest.raises(CopyCancelled):
        await task
    assert files(root) == {f"volumes/{volume}"}


async def test_clone_goes_on_from_a_checkpoint_but_only_of_its_own_file(backend, root):
    volume, copy, progress, notes = new_id(), new_id(), [], []
    await backend.create(volume, 16 * MIB)
    fill(await backend.path(volume), os.urandom(16 * MIB))
    content = (await backend.path(volume)).read_bytes()

    async def save(offset: int) -> None:
        notes.append(offset)

    slow = CopyOptions(rate_limit=16 * MIB, reflink=False, checkpoint_every=MIB)
    work = Work(slow, progress.append, Checkpoint(0, save))
    task = asyncio.create_task(backend.clone(copy, 16 * MIB, CloneSource("volume", volume), work))
    while not notes:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert f"partial/{copy}" in files(root)
    again = Work(CopyOptions(reflink=False), progress.append, Checkpoint(notes[-1], save))
    await backend.clone(copy, 16 * MIB, CloneSource("volume", volume), again)
    assert (await backend.path(copy)).read_bytes() == content
    assert progress[-1].done == progress[-1].total == 16 * MIB
    lost = Work(CopyOptions(reflink=False), progress.append, Checkpoint(8 * MIB, save))
    other = new_id()
    await backend.clone(other, 16 * MIB, CloneSource("volume", volume), lost)
    assert (await backend.path(other)).read_bytes() == content


async def test_leftovers_are_listed_and_the_sum_survives_a_restart(backend, root):
    volume, half = new_id(), new_id()
    await backend.create(volume, 3 * MIB)
    await backend.prepare(half, 5 * MIB)
    (root / "volumes" / "notes.txt").write_text("by hand")
    again = FileBackend("fast", FileBackendConfig(path=root))
    try:
        found = {(h.kind, h.id) for h in await again.inventory()}
        assert found == {("volume", volume), ("leftover", half), ("leftover", "notes.txt")}
        assert (await again.pool()).allocated_bytes == 3 * MIB
        (root / "volumes" / volume).unlink()
        await again.inventory()
        assert (await again.pool()).allocated_bytes == 0
    finally:
        again.close()


async def test_many_hosts_open_one_folder_at_once_and_what_a_killed_one_left_goes(root):
    left = root / "partial" / ".probe"
    left.parent.mkdir(parents=True)
    left.touch()
    os.utime(left, (0, 0))
    opened = await asyncio.gather(
        *(asyncio.to_thread(FileBackend, "local", FileBackendConfig(path=root)) for _ in range(40))
    )
    assert not list(left.parent.iterdir())
    for each in opened:
        each.close()


async def test_many_at_once(backend):
    ids = [new_id() for _ in range(40)]
    await asyncio.gather(*(backend.create(i, MIB) for i in ids), *(backend.inventory() for _ in range(5)))
    assert (await backend.pool()).allocated_bytes == 40 * MIB
    assert [len(found) for found in await asyncio.gather(*(backend.inventory() for _ in range(20)))] == [40] * 20
    await asyncio.gather(*(backend.delete(i) for i in ids), *(backend.inventory() for _ in range(5)))
    assert (await backend.pool()).allocated_bytes == 0


@pytest.mark.parametrize("bad", ["../etc", "", "a/b", "0" * 36, "x\0y"])
async def test_only_ids_become_names(backend, bad):
    for call in (
        backend.create(bad, MIB), backend.prepare(bad, MIB), backend.publish(bad), backend.delete(bad),
        backend.extend(bad, MIB), backend.path(bad), backend.snapshot(bad, new_id()), backend.delete_snapshot(bad),
        backend.clone(new_id(), MIB, CloneSource("volume", bad)), backend.clone(bad, MIB, CloneSource("volume", bad)),
    ):  # fmt: skip
        with pytest.raises((Invalid, VolumeNotFound)):
            await call


async def test_links_and_other_things_are_not_followed(backend, root, tmp_path):
    volume, target = new_id(), tmp_path / "shadow"
    target.write_bytes(b"root:*:")
    for folder in ("volumes", "partial"):
        place = root / folder / volume
        place.symlink_to(target)
        with pytest.raises(NoPermission) as caught:
            await backend.create(volume, MIB)
        assert str(root) not in str(caught.value)
        with pytest.raises(NoPermission):
            await backend.snapshot(volume, new_id()) if folder == "volumes" else await backend.prepare(volume, MIB)
        place.unlink()
    os.mkfifo(root / "partial" / volume)
    with pytest.raises(NoPermission):
        await backend.create(volume, MIB)
    assert target.read_bytes() == b"root:*:"


async def test_promises_have_a_limit(root):
    backend = FileBackend("tight", FileBackendConfig(path=root, max_over_subscription=1.0, reserved_percent=50))
    try:
        pool = await backend.pool()
        half = pool.total_bytes // 2
        assert pool.free_bytes <= half + MIB
        volume = new_id()
        await backend.create(volume, MIB)
        for call in (
            backend.create(new_id(), half),
            backend.extend(volume, half + MIB),
            backend.prepare(new_id(), half),
        ):
            with pytest.raises(OverSubscribed):
                await call
        assert [h.id for h in await backend.inventory()] == [volume]
    finally:
        backend.close()


async def test_nothing_blocks_the_event_loop(backend):
    volume, snapshot, other = new_id(), new_id(), new_id()
    with blockbuster_ctx():
        await backend.create(volume, MIB)
        await backend.snapshot(volume, snapshot)
        await backend.clone(other, MIB, CloneSource("snapshot", snapshot))
        await backend.extend(volume, 2 * MIB)
        await backend.prepare(new_id(), MIB)
        await backend.inventory()
        await backend.pools()
        await backend.delete(volume)


@pytest.mark.parametrize("used", [True, False])
async def test_a_file_in_use_that_shares_nothing_is_not_copied_piece_by_piece(backend, root, monkeypatch, used):
    async def holders(volume_id, *, writers):
        return ["/dev/loop7"] if used else []

    volume, snapshot, clone = new_id(), new_id(), new_id()
    await backend.create(volume, MIB)
    backend._tree.reflink = True  # as Btrfs shows it; this one file has no copy-on-write
    monkeypatch.setattr(engine, "reflink", lambda source, dest: False)
    monkeypatch.setattr(backend, "holders", holders)
    if used:
        with pytest.raises(NotShared):
            await backend.snapshot(volume, snapshot)
        with pytest.raises(NotShared):
            await backend.clone(clone, MIB, CloneSource("volume", volume))
        assert files(root) == {f"volumes/{volume}"}
    else:
        await backend.snapshot(volume, snapshot)
        await backend.clone(clone, MIB, CloneSource("volume", volume))
        assert files(root) == {f"volumes/{volume}", f"volumes/{clone}", f"snapshots/{snapshot}"}
