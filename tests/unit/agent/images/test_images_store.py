"""The store keeps whole, accepted images only, and every call can be repeated after a kill at any line."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from agent.base.errors import Invalid
from agent.base.ids import new_id
from agent.images.checksum import verify_checksum
from agent.images.errors import (
    ChecksumDiffers,
    FormatMismatch,
    ImageDiffers,
    ImageNotFound,
    MemorySpoolLimit,
    SpoolFull,
)
from agent.images.inspect import Declared
from agent.images.spool import MemorySpool, Spool, room_for
from agent.images.store import ImageStore, Stored

RAW = Declared("raw")
DATA = b"boot" + bytes(range(256)) * 100


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "store")
    store.open()
    store.open()
    return store


def upload(store: ImageStore, image_id: str, data: bytes) -> None:
    fd = store.receive(image_id)
    os.write(fd, data)
    os.close(fd)


async def test_commit_read_delete(store: ImageStore) -> None:
    image_id = new_id()
    upload(store, image_id, b"an earlier, longer upload" * 5000)
    upload(store, image_id, DATA)
    assert [(s.kind, s.size) for s in await store.inventory()] == [("leftover", len(DATA))]
    told: list[int] = []
    assert await store.arrived(image_id) == len(DATA)
    made = await store.commit(image_id, RAW, told.append)
    assert told[-1] == made.size == len(DATA)
    assert await store.arrived(image_id) == 0
    assert made.sha256 == hashlib.sha256(DATA).hexdigest()
    assert made.md5 == hashlib.md5(DATA).hexdigest()
    assert await store.commit(image_id, RAW) == made
    fd = store.read(image_id)
    assert os.read(fd, 1 << 20) == DATA
    os.close(fd)
    (kept,) = await store.inventory()
    assert (kept.id, kept.kind, kept.size) == (image_id, "image", len(DATA))
    await store.delete(image_id)
    await store.delete(image_id)
    assert await store.inventory() == []
    with pytest.raises(ImageNotFound):
        store.read(image_id)


async def test_refused_bytes_are_never_kept(store: ImageStore) -> None:
    image_id = new_id()
    upload(store, image_id, b"QFI\xfb" + DATA)
    for _ in range(2):
        with pytest.raises(FormatMismatch):
            await store.commit(image_id, RAW)
    with pytest.raises(ImageNotFound):
        store.read(image_id)
    await store.delete(image_id)
    with pytest.raises(ImageNotFound):
        await store.commit(image_id, RAW)


async def test_same_image_twice(store: ImageStore, tmp_path: Path) -> None:
    image_id = new_id()
    upload(store, image_id, DATA)
    made = await store.commit(image_id, RAW)
    with pytest.raises(ImageDiffers):
        store.receive(image_id)
    arrived = tmp_path / "store" / "incoming" / image_id
    arrived.write_bytes(DATA)
    assert await store.commit(image_id, RAW) == made
    assert not arrived.exists()
    arrived.write_bytes(DATA + b"more")
    with pytest.raises(ImageDiffers):
        await store.commit(image_id, RAW)
    assert (tmp_path / "store" / "images" / image_id).read_bytes() == DATA


async def test_names_and_links_from_outside(store: ImageStore, tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "", "x", "A" * 36):
        with pytest.raises(Invalid):
            store.receive(name)
        with pytest.raises(Invalid):
            await store.commit(name, RAW)
        with pytest.raises(Invalid):
            await store.delete(name)
    image_id = new_id()
    (tmp_path / "store" / "images" / image_id).symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        store.read(image_id)
    assert await store.inventory() == []
    assert Stored("i", "image", 1, 1).kind == "image"


async def test_spool_admits_before_the_first_byte(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "killed.spool").write_bytes(b"x")
    (folder / "other").write_bytes(b"not ours")
    spool = Spool(folder, 1000)
    assert spool.open() == 1
    async with spool.room(600) as fd:
        os.write(fd, b"data")
        assert os.listdir(folder) == ["other"]
        with pytest.raises(SpoolFull) as caught:
            async with spool.room(500):
                raise AssertionError
        assert caught.value.context["free"] == 400
    async with spool.room(1000):
        assert os.listdir(folder) == ["other"]
    with pytest.raises(SpoolFull):
        async with Spool(folder, 1 << 62).room(1 << 60):
            raise AssertionError


async def test_memory_spool_is_bounded() -> None:
    spool = MemorySpool(1000)
    async with spool.room(600) as fd:
        os.write(fd, b"clear")
        with pytest.raises(SpoolFull):
            async with spool.room(600):
                raise AssertionError
    with pytest.raises(MemorySpoolLimit):
        async with spool.room(1001):
            raise AssertionError
    async with spool.room(1000):
        pass


async def test_clear_bytes_go_to_memory(tmp_path: Path) -> None:
    disk, memory = Spool(tmp_path / "spool", 1000), MemorySpool(1000)
    disk.open()
    for clear in (True, False):
        async with room_for(10, clear=clear, disk=disk, memory=memory) as fd:
            assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:") is clear


async def test_checksum() -> None:
    fd = os.memfd_create("image")
    os.write(fd, DATA)
    await verify_checksum(fd, "sha512", hashlib.sha512(DATA).hexdigest())
    await verify_checksum(fd, "md5", hashlib.md5(DATA).hexdigest().upper())
    with pytest.raises(ChecksumDiffers):
        await verify_checksum(fd, "sha256", hashlib.sha512(DATA).hexdigest())
    os.close(fd)
