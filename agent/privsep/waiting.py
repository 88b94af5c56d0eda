"""Waiting for what the kernel and udev do by themselves: always for an event, never for time alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from agent.host import udev
from agent.privsep.errors import DeviceHeld, KernelRefused

_Found = TypeVar("_Found")
_KERNEL_DEADLINE = 2.0  # without udevd the kernel's event may never reach us; sysfs, read next, says the same
HELD_S = 5.0


class Finished:
    """Devices that udev is done with, as its events tell; without udevd it has nothing to do."""

    def __init__(self, events: udev.Events, known: Iterable[tuple[str, int | None]] = ()) -> None:
        self._udevd, self._told, self._lost = events.udevd, set(known), False

    def heard(self, event: udev.Event) -> None:
        self._lost |= event is udev.LOST
        if event.action != "remove":
            self._told.add((event.name, event.diskseq))

    def holds(self, name: str, diskseq: int | None) -> bool:
        # Its event may be among those that were lost: none would come any more.
        return not self._udevd or (name, diskseq) in self._told or (self._lost and udev.initialized(name))


async def until(
    ready: Callable[[], _Found | None],
    events: udev.Events,
    end: float,
    heard: Callable[[udev.Event], None] = lambda event: None,
    concerns: Callable[[udev.Event], bool] = lambda event: True,
) -> _Found | None:
    """What `ready` finds, asked again after events that concern it, until `end`; without udevd for two seconds at most.

    Among many who wait for devices of their own, each would else look at sysfs for the events of all.
    """
    clock = asyncio.get_running_loop().time
    if not events.udevd:
        end = min(end, clock() + _KERNEL_DEADLINE)
    while (found := ready()) is None:
        event = await events.wait(lambda one: one is udev.LOST or concerns(one), max(0.0, end - clock()))
        if event is None:
            return ready()
        for one in (event, *events.taken()):
            heard(one)
    return found


async def patiently(work: Callable[[], Awaitable[bool]], end: float, held_s: float = HELD_S) -> bool:
    """udevd may have a device open for a moment: then its next event says when to try again."""
    clock = asyncio.get_running_loop().time
    try:
        return await work()
    except (DeviceHeld, KernelRefused):
        if clock() >= end:
            raise
    # From now on: what has been held may have taken long to say so.
    last = min(end, clock() + held_s)
    async with udev.subscribed() as events:
        while True:
            try:
                return await work()
            except (DeviceHeld, KernelRefused):
                if clock() >= last or not events.udevd:
                    raise
                await events.wait(lambda _: True, last - clock())
