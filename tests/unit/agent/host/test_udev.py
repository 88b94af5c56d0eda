"""Waiting for block events on a stand-in for the monitor, and on the kernel's real one."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.host import udev
from agent.privsep.waiting import until


@dataclass
class Told:
    action: str
    properties: dict[str, str]


@dataclass
class Scripted:
    """What a netlink monitor would hand out, in order."""

    events: list[Told] = field(default_factory=list)

    def poll(self, timeout: float) -> Told | None:
        assert timeout == 0
        return self.events.pop(0) if self.events else None


def test_an_event_is_read() -> None:
    assert udev.Event.of("change", {"DEVNAME": "/dev/loop3", "DISKSEQ": "12"}) == udev.Event("change", "loop3", 12)
    assert udev.Event.of("add", {}) == udev.Event("add", "", None)


def listening(source: udev.Source, count: int = 1) -> list[udev.Events]:
    made = [udev.Events(udevd=False) for _ in range(count)]
    source.listeners.extend(made)
    return made


async def test_the_matching_event_ends_the_wait() -> None:
    told = [Told("change", {"DEVNAME": "loop1", "DISKSEQ": str(number)}) for number in (1, 2, 3)]
    source = udev.Source(Scripted(told))
    (events,) = listening(source)
    waiting = asyncio.create_task(events.wait(lambda event: event.diskseq == 2, 5))
    await asyncio.sleep(0)
    source.receive()
    assert await waiting == udev.Event("change", "loop1", 2)


async def test_the_deadline_ends_the_wait() -> None:
    assert await udev.Events(udevd=False).wait(lambda _: True, 0.01) is None


async def test_all_who_listen_hear_each_event_that_is_read_once() -> None:
    source = udev.Source(Scripted([Told("add", {"DEVNAME": "sda"}), Told("add", {"DEVNAME": "sdb"})]))
    listeners = listening(source, 3)
    source.receive()
    assert [[event.name for event in one.taken()] for one in listeners] == [["sda", "sdb"]] * 3


class Overrun:
    def poll(self, timeout: float) -> None:
        raise OSError(105, "No buffer space available")


async def test_lost_events_are_told_as_one_that_concerns_all() -> None:
    source = udev.Source(Overrun())
    (events,) = listening(source)
    source.receive()
    assert events.taken() == [udev.LOST]
    seen = iter([None, "there"])
    source.receive()
    assert await until(lambda: next(seen), events, asyncio.get_running_loop().time() + 5, concerns=lambda _: False)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="causing an event needs root")
@pytest.mark.skipif(not Path("/sys/block/loop0/uevent").exists(), reason="no loop device here")
async def test_the_kernel_tells_of_a_real_device() -> None:
    async with udev.subscribed(control=Path("/nonexistent")) as events:
        assert not events.udevd
        Path("/sys/block/loop0/uevent").write_text("change")
        found = await events.wait(lambda event: event.name == "loop0", 10)
    assert found is not None
    assert found.action == "change"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="causing an event needs root")
@pytest.mark.skipif(not Path("/sys/block/loop0/uevent").exists(), reason="no loop device here")
async def test_one_socket_serves_all_and_nobody_hears_what_was_before() -> None:
    nowhere, trigger = Path("/nonexistent"), Path("/sys/block/loop0/uevent")
    async with udev.subscribed(control=nowhere) as first:
        trigger.write_text("change")
        async with udev.subscribed(control=nowhere) as second:
            assert await first.wait(lambda event: event.name == "loop0", 10) is not None
            assert not [event for event in second.taken() if event.name == "loop0"]
            trigger.write_text("change")
            for one in (first, second):
                assert await one.wait(lambda event: event.name == "loop0", 10) is not None
        trigger.write_text("change")
        assert await first.wait(lambda event: event.name == "loop0", 10) is not None


async def test_listening_and_looking_start_no_process_once_the_library_is_loaded() -> None:
    started: list[object] = []
    counted = True

    def watch(event: str, args: tuple[object, ...]) -> None:
        if counted and event in {"subprocess.Popen", "os.fork", "os.posix_spawn"}:
            started.append(args)

    async with udev.subscribed():
        udev.initialized("loop0")
    sys.addaudithook(watch)
    for _ in range(3):
        async with udev.subscribed():
            assert not udev.claimed_by_multipath("none0")
    counted = False
    assert started == []


def test_block_devices_have_names() -> None:
    assert all("DEVNAME" in found for found in udev.block_devices())
