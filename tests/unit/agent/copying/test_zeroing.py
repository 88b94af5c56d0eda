"""Zeros over a range: exactly there, resumable, cancelled in the middle, at the rate that was asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.copying.errors import CopyCancelled, CopyRefused
from agent.copying.model import Checkpoint, CopyOptions, CopyProgress, by_path
from agent.copying.zeroing import Range, zero

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"\xff" * (8 * MIB))
    return path


async def run(
    disk: Path, start: int, end: int, options: CopyOptions | None = None, **keys: object
) -> list[CopyProgress]:
    told: list[CopyProgress] = []
    checkpoint, cancel = keys.get("checkpoint"), keys.get("cancel", asyncio.Event())
    assert checkpoint is None or isinstance(checkpoint, Checkpoint)
    assert isinstance(cancel, asyncio.Event)
    await zero(Range(by_path(disk), start, end), options or CopyOptions(), told.append, checkpoint, cancel)
    return told


async def test_only_the_range_is_zeroed(disk: Path) -> None:
    told = await run(disk, MIB + 512, 3 * MIB)
    data = disk.read_bytes()
    assert data == b"\xff" * (MIB + 512) + bytes(2 * MIB - 512) + b"\xff" * (5 * MIB)
    assert (told[-1].done, told[-1].total, told[-1].phase) == (2 * MIB - 512, 2 * MIB - 512, "copy")


async def test_it_goes_on_at_the_checkpoint_and_notes_how_far_it_is(disk: Path) -> None:
    saved: list[int] = []

    async def save(done: int) -> None:
        saved.append(done)

    options = CopyOptions(checkpoint_every=MIB, rate_limit=40 * MIB)
    await run(disk, 0, 8 * MIB, options, checkpoint=Checkpoint(5 * MIB, save))
    assert disk.read_bytes() == b"\xff" * (5 * MIB) + bytes(3 * MIB)
    assert saved == sorted(saved)
    assert all(5 * MIB < done <= 8 * MIB for done in saved)


async def test_a_cancel_ends_it(disk: Path) -> None:
    cancel = asyncio.Event()
    cancel.set()
    with pytest.raises(CopyCancelled):
        await run(disk, 0, 8 * MIB, cancel=cancel)
    assert disk.read_bytes() == b"\xff" * (8 * MIB)


async def test_a_rate_limit_holds(disk: Path) -> None:
    began = asyncio.get_running_loop().time()
    await run(disk, 0, 8 * MIB, CopyOptions(rate_limit=16 * MIB))
    assert asyncio.get_running_loop().time() - began > 0.3


async def test_what_may_not_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("disk")
    with pytest.raises(CopyRefused):
        await zero(Range(by_path(tmp_path / "link"), 0, MIB), CopyOptions(), lambda _: None, None, asyncio.Event())
