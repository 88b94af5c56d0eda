"""The one door for commands, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from agent.host import tools
from agent.host.errors import ToolFailed, ToolMissing, ToolTimeout
from agent.host.run import run, uninterrupted

tools.declare(
    tools.Tool("sh", "dash", "tests"),
    tools.Tool("sleep", "coreutils", "tests"),
    tools.Tool("cat", "coreutils", "tests"),
)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def command_lines() -> list[bytes]:
    """Arguments and environment of every process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.append((entry / "cmdline").read_bytes() + (entry / "environ").read_bytes())
    return found


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


async def test_output_and_status():
    done = await run(["sh", "-c", "echo out; echo err >&2"], timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")


async def test_unknown_and_uninstalled_tools_are_named():
    with pytest.raises(ToolMissing) as caught:
        await run(["rm-everything"], timeout=1)
    assert "rm-everything" in str(caught.value)
    tools.declare(tools.Tool("brickyard-not-there", "brickyard-nowhere", "tests"))
    with pytest.raises(ToolMissing) as caught:
        await run(["brickyard-not-there"], timeout=1)
    assert "brickyard-nowhere" in caught.value.remedy
    assert "brickyard-not-there" in [t.name for t in tools.missing()]
    assert tools.missing(["sh"]) == []


async def test_path_is_never_consulted(tmp_path, monkeypatch):
    (tmp_path / "sh").write_text("#!/bin/false\n")
    (tmp_path / "sh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (await run(["sh", "-c", "echo $PATH"], timeout=60)).stdout == b"/usr/sbin:/usr/bin:/sbin:/bin\n"


async def test_failure_carries_the_tools_last_words():
    with pytest.raises(ToolFailed) as caught:
        await run(["sh", "-c", "echo no such thing >&2; exit 3"], timeout=60)
    assert "status 3" in str(caught.value)
    assert "no such thing" in str(caught.value)
    assert (await run(["sh", "-c", "exit 3"], timeout=60, ok=(0, 3))).returncode == 3


async def test_stdin_is_closed_unless_given():
    assert (await run(["cat"], timeout=60)).stdout == b""
    big = os.urandom(700_000)
    assert (await run(["cat"], timeout=60, stdin=big)).stdout == big


async def test_environment_is_an_allow_list(monkeypatch):
    monkeypatch.setenv("OS_PASSWORD", "canary-7131")
    said = (await run(["sh", "-c", "export -p"], timeout=60)).stdout.decode()
    assert "canary" not in said
    assert "LC_ALL='C'" in said


async def test_secret_reaches_the_tool_by_descriptor_alone(monkeypatch):
    canary = b"canary-" + os.urandom(8).hex().encode()
    task = asyncio.create_task(
        run(["sh", "-c", "cat $1 $1; sleep 5; exit 1", "x", "{secret:key}"], timeout=60, secrets={"key": canary})
    )
    await asyncio.sleep(0.3)
    seen = command_lines()
    assert any(b"sleep 5" in text for text in seen)
    assert not any(canary in text for text in seen)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done = await run(["cat", "{secret:key}", "{secret:key}"], timeout=60, secrets={"key": canary})
    assert done.stdout == canary * 2
    assert canary.decode() not in repr(done.argv)


async def test_secret_that_a_tool_repeats_is_blotted_out():
    with pytest.raises(ToolFailed) as caught:
        await run(["sh", "-c", "cat $1 >&2; exit 1", "x", "{secret:k}"], timeout=60, secrets={"k": b"hush-hush"})
    assert "hush" not in str(caught.value)
    assert "***" in str(caught.value)


async def test_cancelled_while_it_starts():
    seconds = f"{random.randrange(10**8, 10**9)}"
    for turns in range(6):
        task = asyncio.create_task(run(["sleep", seconds], timeout=60))
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not [text for text in command_lines() if seconds.encode() in text]


async def test_timeout_ends_the_whole_group(tmp_path):
    script = f"sleep 77 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(ToolTimeout):
        await run(["sh", "-c", script], timeout=0.3)
    pid = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not alive(pid))


async def test_a_tool_that_ignores_term_is_killed():
    before = time.monotonic()
    with pytest.raises(ToolTimeout):
        await run(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], timeout=0.2, grace=0.2)
    assert time.monotonic() - before < 30


async def test_cancel_ends_and_reaps_the_child(tmp_path):
    task = asyncio.create_task(run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 88"], timeout=60))
    assert await asyncio.to_thread(wait_until, lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not Path(f"/proc/{pid}").exists()


async def test_left_over_children_do_not_outlive_the_tool(tmp_path):
    before = time.monotonic()
    await run(["sh", "-c", f"sleep 66 & echo $! > {tmp_path}/pid"], timeout=60)
    assert time.monotonic() - before < 40
    pid = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not alive(pid))


async def test_more_output_than_allowed_is_a_failure_unless_streamed():
    many = ["sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo 0123456789; i=$((i+1)); done"]
    with pytest.raises(ToolFailed, match="more than 1000 bytes"):
        await run(many, timeout=60, max_output=1000)
    pieces: list[bytes] = []
    done = await run(many, timeout=60, max_output=1000, on_output=pieces.append)
    assert len(b"".join(pieces)) == 33000
    assert len(done.stdout) == 1000


async def test_no_descriptor_is_left_open():
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await run(["cat", "{secret:a}"], timeout=60, secrets={"a": b"x" * 10}, stdin=b"y")
        with pytest.raises(ToolTimeout):
            await run(["sleep", "9"], timeout=0.05)
        with pytest.raises(ToolMissing):
            await run(["brickyard-nothing"], timeout=0.05)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_child_dies_with_a_killed_parent(tmp_path):
    program = textwrap.dedent(
        f"""
        import asyncio
        from agent.host import tools
        from agent.host.run import run
        tools.declare(tools.Tool("sh", "dash", "tests"))
        asyncio.run(run(["sh", "-c", "echo $$ > {tmp_path}/pid; exec sleep 99"], timeout=90))
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        assert wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), 20)
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_until(lambda: not alive(pid))
    finally:
        parent.kill()
        parent.wait()


async def test_uninterrupted_ends_its_work_and_then_gives_way():
    ended = []

    async def work(failure: Exception | None) -> int:
        await asyncio.sleep(0.1)
        ended.append(failure)
        if failure:
            raise failure
        return 5

    assert await uninterrupted(work(None)) == 5
    with pytest.raises(ValueError, match="x"):
        await uninterrupted(work(ValueError("x")))
    for failure in (None, ValueError("y")):
        task = asyncio.create_task(uninterrupted(work(failure)))
        for _ in range(3):
            await asyncio.sleep(0.01)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended[-1] is failure


async def test_nothing_blocks_the_event_loop():
    with blockbuster_ctx():
        await run(["cat", "{secret:k}"], timeout=60, secrets={"k": b"123456"}, stdin=b"1")
