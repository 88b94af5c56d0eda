"""Room for bytes on their way: however many ask at the same time, no more is promised than there is."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.images.errors import MemorySpoolLimit, SpoolFull
from agent.images.spool import MemorySpool, Spool, room_for

MAX = 1000


def opened(folder: Path, limit: int = MAX) -> Spool:
    spool = Spool(folder, limit)
    spool.open()
    return spool


@given(st.lists(st.integers(1, MAX), min_size=2, max_size=20), st.randoms())
@settings(max_examples=30, deadline=None)
def test_many_at_once_never_get_more_than_there_is(tmp_path_factory, sizes, random) -> None:
    spool = opened(tmp_path_factory.mktemp("spool"))
    held: list[int] = []

    async def one(size: int) -> bool:
        try:
            async with spool.room(size) as fd:
                held.append(size)
                assert sum(held) <= MAX, held
                assert os.fstat(fd).st_nlink == 0
                for _ in range(random.randint(0, 3)):
                    await asyncio.sleep(0)
                held.remove(size)
        except SpoolFull:
            return False
        return True

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*map(one, sizes))

    got = asyncio.run(all_of_them())
    assert any(got), "the first always fits"
    assert asyncio.run(one(MAX)), "what was given back can be had again"


async def test_what_is_held_counts_until_it_is_given_back_whatever_happened(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    with pytest.raises(RuntimeError, match="broke"):
        await broken(spool)
    waiting = asyncio.ensure_future(held_for_ever(spool))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with spool.room(MAX):
        pass
    assert list(tmp_path.iterdir()) == []


async def broken(spool: Spool) -> None:
    async with spool.room(600):
        with pytest.raises(SpoolFull) as caught:
            async with spool.room(401):
                pass
        assert caught.value.context == {"free": 400, "wanted": 401}
        async with spool.room(400):
            pass
        raise RuntimeError("broke")


async def held_for_ever(spool: Spool) -> None:
    async with spool.room(MAX):
        await asyncio.Event().wait()


async def test_the_disk_counts_too(tmp_path: Path) -> None:
    there = os.statvfs(tmp_path)
    spool = opened(tmp_path, 1 << 60)
    with pytest.raises(SpoolFull):
        async with spool.room(there.f_bavail * there.f_frsize * 2):
            pass


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "abc.spool").write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"x")
    assert Spool(tmp_path, MAX).open() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


async def test_clear_data_is_bounded_memory_and_never_a_file(tmp_path: Path) -> None:
    memory, disk = MemorySpool(100), opened(tmp_path)
    with pytest.raises(MemorySpoolLimit):
        async with room_for(101, clear=True, disk=disk, memory=memory):
            pass
    async with AsyncExitStack() as stack:
        fd = await stack.enter_async_context(room_for(60, clear=True, disk=disk, memory=memory))
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
        with pytest.raises(SpoolFull):
            await stack.enter_async_context(room_for(41, clear=True, disk=disk, memory=memory))
        await stack.enter_async_context(room_for(40, clear=True, disk=disk, memory=memory))
    async with room_for(100, clear=True, disk=disk, memory=memory):
        pass
