"""What the conversion tool is told: formats and descriptors by name, secrets never; and progress from percentages."""

from __future__ import annotations

import asyncio

import pytest

from agent.copying.errors import CopyCancelled
from agent.copying.model import CopyProgress
from agent.luks.cancelling import unless_cancelled
from agent.luks.convert import Node, command
from agent.luks.errors import BadSecret
from agent.luks.meter import Meter


def test_command_names_formats_and_hides_secrets() -> None:
    source, target = Node(7, "qcow2", b"hush-1"), Node(8, "luks", b"hush-2", offset=512)
    argv, secrets = command([source, Node(9, "raw")], target, target_zero=False, rate_limit=1000)
    assert "hush" not in " ".join(argv) + repr(source)
    assert set(secrets.values()) == {b"hush-1", b"hush-2"}
    assert argv[-4:] == [
        "driver=qcow2,file.driver=file,file.filename=/dev/fd/7,encrypt.format=luks,encrypt.key-secret=s0",
        "driver=raw,file.driver=file,file.filename=/dev/fd/9",
        "--target-image-opts",
        "driver=luks,file.driver=raw,file.offset=512,file.file.driver=file,file.file.filename=/dev/fd/8,key-secret=s2",
    ]
    assert "--target-is-zero" not in argv
    assert argv[argv.index("-S") + 1] == "0"
    assert argv[argv.index("-r") + 1] == "1000"


@pytest.mark.parametrize("key", [b"a\0b", b"\xff\xfe"])
def test_passphrase_the_tool_can_not_take(key: bytes) -> None:
    with pytest.raises(BadSecret):
        command([Node(3, "luks", key)], Node(4, "raw"), target_zero=True)


def test_meter_reports_the_end() -> None:
    seen: list[CopyProgress] = []
    meter = Meter("convert", 100, seen.append)
    for done in range(100):
        meter.at(done)
    meter.at(100, final=True)
    assert len(seen) <= 3
    assert (seen[-1].phase, seen[-1].done, seen[-1].total) == ("convert", 100, 100)


async def test_work_ends_before_the_cancellation_is_told() -> None:
    cancel, ended = asyncio.Event(), []

    async def work() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)
        return 1

    asyncio.get_running_loop().call_later(0.01, cancel.set)
    with pytest.raises(CopyCancelled):
        await unless_cancelled(work(), cancel)
    assert ended

    async def quick() -> int:
        return 5

    assert await unless_cancelled(quick(), asyncio.Event()) == 5
