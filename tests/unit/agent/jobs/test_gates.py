from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.host.errors import ResourceBusy
from agent.jobs.gates import Gates
from agent.jobs.kinds import Lane, Needs

WRITE = Needs(exclusive=("contents-a",))
READ = Needs(exclusive=("volume-b",), shared=("contents-a",))


def gates(folder: Path, deadline: float = 5.0) -> Gates:
    return Gates(folder, {"quick": 10, "heavy": 1}, deadline)


async def test_readers_pass_together_and_a_writer_waits_for_them(tmp_path: Path) -> None:
    gate, log = gates(tmp_path), []
    leave = asyncio.Event()

    async def read(name: str) -> None:
        async with gate.hold(Needs(exclusive=(f"volume-{name}",), shared=("contents-a",)), "quick"):
            log.append(name)
            await leave.wait()

    async def write() -> None:
        async with gate.hold(WRITE, "quick"):
            log.append("writer")

    tasks = [asyncio.create_task(read("x")), asyncio.create_task(read("y"))]
    await asyncio.sleep(0.05)
    tasks.append(asyncio.create_task(write()))
    await asyncio.sleep(0.05)
    tasks.append(asyncio.create_task(read("z")))
    await asyncio.sleep(0.05)
    assert sorted(log) == ["x", "y"]
    leave.set()
    await asyncio.gather(*tasks)
    assert log[2:] == ["writer", "z"]
    assert not gate._doors


async def test_a_cancelled_waiter_lets_the_next_pass(tmp_path: Path) -> None:
    gate = gates(tmp_path)
    passed = asyncio.Event()

    async def write() -> None:
        async with gate.hold(WRITE, "quick"):
            passed.set()

    async with gate.hold(WRITE, "quick"):
        first, second = asyncio.create_task(write()), asyncio.create_task(write())
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not passed.is_set()
    await asyncio.wait_for(second, 60)
    assert not gate._doors


async def test_nothing_exclusive_needs_no_file_lock(tmp_path: Path) -> None:
    async with gates(tmp_path).hold(Needs(), "heavy") as fd:
        assert fd is None


async def test_a_tool_of_an_earlier_life_keeps_others_out_until_it_is_gone(tmp_path: Path) -> None:
    async with gates(tmp_path).hold(WRITE, "quick") as fd:
        assert fd is not None
        tool = await asyncio.create_subprocess_exec("sleep", "60", pass_fds=(fd,))
    try:
        with pytest.raises(ResourceBusy):
            async with gates(tmp_path, deadline=0.2).hold(WRITE, "quick"):
                raise AssertionError("ran beside the old tool")

        killed = False

        async def rerun() -> None:
            # The kernel lets go of the lock a moment before anybody is told that the process ended.
            async with gates(tmp_path).hold(WRITE, "quick"):
                assert killed

        waiting = asyncio.create_task(rerun())
        await asyncio.sleep(0.2)
        assert not waiting.done()
    finally:
        killed = True
        tool.kill()
        await tool.wait()
    await asyncio.wait_for(waiting, 60)


async def test_a_copy_that_waits_for_its_turn_keeps_its_source_as_it_was(tmp_path: Path) -> None:
    """It was accepted while the source could be copied; what comes after it must not make it fail."""
    gate, log = gates(tmp_path), []

    async def job(name: str, needs: Needs, lane: Lane) -> None:
        async with gate.hold(needs, lane):
            log.append(name)

    async with gate.hold(Needs(exclusive=("volume-other",)), "heavy"):
        tasks = [asyncio.create_task(job("copy", READ, "heavy"))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(job("attach", WRITE, "quick")), asyncio.create_task(job("read", READ, "quick"))]
        tasks.append(asyncio.create_task(job("elsewhere", Needs(exclusive=("volume-c",)), "quick")))
        await asyncio.wait_for(tasks[-1], 60)
        assert log == ["elsewhere"]
    await asyncio.gather(*tasks)
    assert log == ["elsewhere", "copy", "attach", "read"]
    assert not gate._doors
