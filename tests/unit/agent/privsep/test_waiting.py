"""Work that a device refuses for a moment is tried again; what succeeds at once opens no socket for events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.host import udev
from agent.privsep import waiting
from agent.privsep.errors import DeviceHeld

HELD = DeviceHeld(device="/dev/sda", holders="udevd")


class Listening:
    """Stands in for the subscription: how often somebody listened, and what they hear."""

    def __init__(self) -> None:
        self.times = 0
        self.events = udev.Events(udevd=True)

    @asynccontextmanager
    async def subscribed(self) -> AsyncIterator[udev.Events]:
        self.times += 1
        yield self.events


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Listening:
    made = Listening()
    monkeypatch.setattr(udev, "subscribed", made.subscribed)
    return made


def end() -> float:
    return asyncio.get_running_loop().time() + 60


async def test_what_succeeds_at_once_listens_to_nothing(listening: Listening) -> None:
    async def work() -> bool:
        return True

    assert await waiting.patiently(work, end())
    assert listening.times == 0


async def test_a_device_that_is_held_is_tried_again_at_the_next_event(listening: Listening) -> None:
    tries = 0

    async def work() -> bool:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise HELD
        return True

    listening.events.put(udev.Event("change", "sda", 1))
    assert await waiting.patiently(work, end())
    assert (tries, listening.times) == (3, 1)


async def test_what_stays_held_is_told_when_the_patience_ends(listening: Listening) -> None:
    async def work() -> bool:
        raise HELD

    with pytest.raises(DeviceHeld, match="udevd"):
        await waiting.patiently(work, end(), held_s=0.0)


async def test_a_first_try_that_takes_long_is_not_the_last_one(listening: Listening) -> None:
    tries = 0

    async def work() -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.sleep(1.1)
        if tries < 3:
            raise HELD
        return True

    listening.events.put(udev.Event("change", "sda", 1))
    assert await waiting.patiently(work, end(), held_s=1.0)


async def test_past_the_deadline_nothing_is_tried_again(listening: Listening) -> None:
    async def work() -> bool:
        raise HELD

    with pytest.raises(DeviceHeld):
        await waiting.patiently(work, end() - 61)
    assert listening.times == 0


def test_an_event_that_was_lost_is_made_up_for_by_udevs_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udev, "initialized", lambda name: name == "sda")
    finished = waiting.Finished(udev.Events(udevd=True), [("sdc", 3)])
    assert not finished.holds("sda", 1)
    finished.heard(udev.Event("add", "sdb", 2))
    finished.heard(udev.LOST)
    assert [finished.holds(name, number) for name, number in (("sda", 1), ("sdb", 2), ("sdb", 9), ("sdc", 3))] == [
        True, True, False, True,
    ]  # fmt: skip
    assert waiting.Finished(udev.Events(udevd=False)).holds("sda", 1)
