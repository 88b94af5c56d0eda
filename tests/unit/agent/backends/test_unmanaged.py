"""Adopting files that others made, letting go, going back to a snapshot, taking a new content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.backends.abilities import Adopting, Replacing, Reverting, adopting, replacing, reverting
from agent.backends.config import FileBackendConfig
from agent.backends.errors import CanNot, NotAdoptable, VolumeExists, VolumeNotFound
from agent.backends.file import FileBackend
from agent.base.ids import new_id

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "vol"


@pytest.fixture
def backend(root: Path) -> Any:
    opened = FileBackend("fast", FileBackendConfig(path=root))
    yield opened
    opened.close()


def put(root: Path, name: str, data: bytes = b"x" * MIB) -> Path:
    path = root / "unmanaged" / name
    path.write_bytes(data)
    return path


async def test_what_is_not_managed_is_promised_but_not_ours(root: Path, backend: FileBackend) -> None:
    put(root, "theirs")
    await backend.create(new_id(), 3 * MIB)
    state = await backend.pool()
    assert (state.allocated_bytes, state.foreign_bytes) == (3 * MIB, MIB)


def test_it_has_every_ability(backend: FileBackend) -> None:
    assert reverting(backend) is replacing(backend) is adopting(backend) is backend
    for ability in (Reverting, Replacing, Adopting):
        assert isinstance(backend, ability)


def test_one_that_has_none_is_refused_by_name() -> None:
    class Poor:
        name = "poor"

    for ask in (reverting, replacing, adopting):
        with pytest.raises(CanNot, match="poor can not"):
            ask(Poor())  # type: ignore[arg-type]


async def test_adopt_is_a_rename_and_may_be_repeated(backend: FileBackend, root: Path) -> None:
    inode = put(root, "theirs.raw").stat().st_ino
    volume = new_id()
    before = (await backend.pool()).allocated_bytes
    for _ in range(2):
        await backend.adopt("volume", volume, "theirs.raw", MIB)
    path = root / "volumes" / volume
    assert (path.stat().st_ino, path.stat().st_mode & 0o777) == (inode, 0o600)
    assert (await backend.pool()).allocated_bytes == before + MIB
    assert await backend.foreign() == []
    for _ in range(2):
        assert await backend.release("volume", volume) == f"volume-{volume}"
    assert (root / "unmanaged" / f"volume-{volume}").stat().st_ino == inode
    assert (await backend.pool()).allocated_bytes == before


async def test_a_snapshot_is_told_with_its_source(backend: FileBackend, root: Path) -> None:
    volume, snapshot = new_id(), new_id()
    await backend.create(volume, MIB)
    await backend.snapshot(volume, snapshot)
    name = await backend.release("snapshot", snapshot, f"volume-{volume}")
    [found] = await backend.foreign()
    assert (found.kind, found.name, found.source, found.reason) == ("snapshot", name, f"volume-{volume}", "")
    await backend.adopt("snapshot", snapshot, name, MIB)
    assert (root / "snapshots" / snapshot).stat().st_size == MIB


async def test_what_is_not_safe_says_why(backend: FileBackend, root: Path, tmp_path: Path) -> None:
    put(root, "empty", b"")
    put(root, "odd", b"x" * 1000)
    put(root, "sp ace")
    os.link(put(root, "linked"), tmp_path / "other-name")
    (root / "unmanaged" / "pointer").symlink_to("/etc/passwd")
    (root / "unmanaged" / "folder").mkdir()
    reasons = {item.name: item.reason for item in await backend.foreign()}
    assert reasons == {
        "empty": "it is empty",
        "odd": "its size is not a whole number of sectors",
        "sp ace": "its name is not of letters, digits, dots, dashes and underscores",
        "linked": "it has other hard links",
        "pointer": "it is not a plain file",
        "folder": "it is not a plain file",
    }
    for name in ("empty", "odd", "linked"):
        size = (root / "unmanaged" / name).stat().st_size
        with pytest.raises(NotAdoptable, match=reasons[name]):
            await backend.adopt("volume", new_id(), name, size)
    for name in ("../volumes/x", "missing", "sp ace"):
        with pytest.raises(VolumeNotFound):
            await backend.adopt("volume", new_id(), name, MIB)
    put(root, "grown")
    with pytest.raises(NotAdoptable, match="had 512 when it was chosen"):
        await backend.adopt("volume", new_id(), "grown", 512)


async def test_revert_is_whole_or_nothing(backend: FileBackend, root: Path) -> None:
    volume, snapshot = new_id(), new_id()
    await backend.create(volume, MIB)
    path = root / "volumes" / volume
    with path.open("r+b") as out:
        out.write(b"first")
    await backend.snapshot(volume, snapshot)
    with path.open("r+b") as out:
        out.write(b"later")
    before = (await backend.pool()).allocated_bytes
    for _ in range(2):
        assert await backend.revert(volume, snapshot) == MIB
        assert path.read_bytes()[:5] == b"first"
    assert (await backend.pool()).allocated_bytes == before
    assert (root / "snapshots" / snapshot).read_bytes()[:5] == b"first"
    assert list((root / "partial").iterdir()) == []
    await backend.extend(volume, 2 * MIB)
    with pytest.raises(VolumeExists):
        await backend.revert(volume, snapshot)


async def test_a_new_content_takes_the_place_at_once(backend: FileBackend, root: Path) -> None:
    volume = new_id()
    await backend.create(volume, MIB)
    path = await backend.prepare_anew(volume, MIB)
    path.write_bytes(b"new" + bytes(MIB - 3))
    assert (root / "volumes" / volume).read_bytes()[:3] == bytes(3)
    for _ in range(2):
        await backend.replace(volume)
    assert (root / "volumes" / volume).read_bytes()[:3] == b"new"
    assert (await backend.pool()).allocated_bytes == MIB
