"""Waiting for block events on a stand-in for the monitor, and on the kernel's real one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.host import udev


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


async def test_the_matching_event_ends_the_wait() -> None:
    told = [Told("change", {"DEVNAME": "loop1", "DISKSEQ": str(number)}) for number in (1, 2, 3)]
    events = udev.Events(Scripted(told), udevd=False)
    waiting = asyncio.create_task(events.wait(lambda event: event.diskseq == 2, 5))
    await asyncio.sleep(0)
    events.receive()
    assert await waiting == udev.Event("change", "loop1", 2)


async def test_the_deadline_ends_the_wait() -> None:
    assert await udev.Events(Scripted(), udevd=False).wait(lambda _: True, 0.01) is None


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


def test_block_devices_have_names() -> None:
    assert all("DEVNAME" in found for found in udev.block_devices())
