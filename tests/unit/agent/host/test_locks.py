"""Resource locks: exclusive, with a deadline, and held as long as any tool that inherited them lives."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess

import pytest
from blockbuster import blockbuster_ctx

from agent.base.errors import Invalid
from agent.host.errors import ResourceBusy
from agent.host.locks import resource_lock


async def test_one_holder_at_a_time_and_nothing_left(tmp_path):
    inside = 0

    async def use() -> None:
        nonlocal inside
        async with resource_lock(tmp_path, "volume-1", 10) as fd:
            assert fd >= 0
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.02)
            inside -= 1

    await asyncio.gather(*(use() for _ in range(6)))
    assert list(tmp_path.iterdir()) == []


async def test_deadline(tmp_path):
    async with resource_lock(tmp_path, "v", 1):
        with pytest.raises(ResourceBusy):
            async with resource_lock(tmp_path, "v", 0.2):
                raise AssertionError("two holders")
        with pytest.raises(ResourceBusy):
            async with resource_lock(tmp_path, "v", 0):
                raise AssertionError("two holders")
        async with resource_lock(tmp_path, "other", 0):
            pass


async def test_a_surviving_tool_keeps_the_lock(tmp_path):
    path = tmp_path / "v.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    tool = subprocess.Popen(["sleep", "60"], pass_fds=(fd,))
    os.close(fd)
    try:
        with pytest.raises(ResourceBusy):
            async with resource_lock(tmp_path, "v", 0.3):
                raise AssertionError("beside the old tool")

        async def after() -> None:
            async with resource_lock(tmp_path, "v", 60):
                assert tool.poll() is not None or tool.wait(60) is not None

        waiting = asyncio.create_task(after())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        tool.kill()
        await waiting
    finally:
        tool.kill()
        tool.wait()


async def test_released_lock_stays_on_disk_while_a_child_holds_it(tmp_path):
    async with resource_lock(tmp_path, "v", 1) as fd:
        tool = subprocess.Popen(["sleep", "60"], pass_fds=(fd,))
    try:
        with pytest.raises(ResourceBusy):
            async with resource_lock(tmp_path, "v", 0.2):
                raise AssertionError("beside the old tool")
    finally:
        tool.kill()
        tool.wait()
    async with resource_lock(tmp_path, "v", 1):
        pass
    assert list(tmp_path.iterdir()) == []


async def test_cancelled_waiter_leaves_no_descriptor(tmp_path):
    async with resource_lock(tmp_path, "v", 1):
        before = len(os.listdir("/proc/self/fd"))

        async def wait() -> None:
            async with resource_lock(tmp_path, "v", 30):
                raise AssertionError("two holders")

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(os.listdir("/proc/self/fd")) == before


async def test_names_can_not_leave_the_folder(tmp_path):
    with pytest.raises(Invalid):
        async with resource_lock(tmp_path, "../x", 1):
            pass


async def test_nothing_blocks_the_event_loop(tmp_path):
    with blockbuster_ctx():
        async with resource_lock(tmp_path, "v", 1):
            with pytest.raises(ResourceBusy):
                async with resource_lock(tmp_path, "v", 0.1):
                    raise AssertionError("two holders")
