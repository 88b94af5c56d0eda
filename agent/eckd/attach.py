"""Take a DASD into use and out of it, by events with a deadline; whatever fails leaves the device as it was.

`online` alone proves nothing (it stays 1 when the device is taken away), a volume serial changes with its label, and
an unformatted disk reads as empty without an error: so availability, unique id and status are looked at each time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from agent.base.errors import BrickyardError
from agent.eckd.errors import DasdAbsent, DasdForeign, DasdUnformatted, FormatFailed
from agent.host import ccw, sysfs, udev
from agent.host.kernel import current
from agent.privsep import ccw as verbs
from agent.privsep.client import call
from agent.privsep.errors import DeviceHeld, NotOnThisPlatform

DEADLINE = 60.0
_FORMAT_NEWS_S = 30
_HELD_S, _APPEAR_S = 10.0, 5.0
_FORMAT_HELD_S, _HELD = 30.0, "Disk in use"  # what dasdfmt says while udev looks at the new disk
_SUBSYSTEMS = ("ccw", "block")
T = TypeVar("T")
_SETTLED = frozenset({"online", "unformatted"})


@dataclass(frozen=True, slots=True)
class Order:
    """`uid` is what the device must call itself; empty when the array does not say. `format` None: never format."""

    bus_id: str
    read_only: bool = False
    format: Literal["cdl", "ldl"] | None = None
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """`ignored`: it was on the ignore list before, and belongs there again afterwards. Bytes."""

    bus_id: str
    device: str
    uid: str
    size: int
    diskseq: int | None
    ignored: bool


async def attach(
    order: Order, *, deadline: float = DEADLINE, progress: Callable[[int, int], None] = lambda done, total: None
) -> Taken:
    """Online, formatted if that is ordered and needed, and proven to be the one. `progress` gets cylinders.

    NotOnThisPlatform, DasdAbsent, DasdForeign, DasdUnformatted, FormatFailed, DeviceHeld, KernelRefused, VerbRefused.
    """
    if not ccw.is_there():
        raise NotOnThisPlatform(device=f"DASD {order.bus_id}")
    before = ccw.dasd(order.bus_id)
    _refuse_in_use(before)
    ignored = ccw.is_ignored(order.bus_id)
    if before is not None and before.online and before.status not in _SETTLED:
        await detach(order.bus_id, deadline=deadline)  # a formatting that was cut off has left it half way
        before = None
    try:
        async with current().events(*_SUBSYSTEMS) as events:
            await _appear(order.bus_id, events, deadline)
            await call(verbs.ccw_online, order.bus_id, order.read_only)
            dasd = await _settled(order.bus_id, events, deadline)
        _judge(dasd, order)
        if dasd.status == "unformatted":
            dasd = await _format(dasd, order, deadline, progress)
    except BaseException:
        if before is None or not before.online:
            with contextlib.suppress(BrickyardError):
                await detach(order.bus_id, ignored=ignored, deadline=deadline)
        raise
    return Taken(order.bus_id, dasd.device, dasd.uid, dasd.size, dasd.diskseq, ignored)


async def detach(bus_id: str, *, ignored: bool = False, deadline: float = DEADLINE) -> bool:
    """Offline, and ignored again if it was; False when it was offline already. DeviceHeld leaves it usable.

    The kernel says busy while udev looks at the disk, too: its next event says when to try again, for some seconds.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + deadline
    patient = min(end, clock() + _HELD_S)
    done = False
    async with current().events(*_SUBSYSTEMS) as events:
        while True:
            try:
                done = await call(verbs.ccw_offline, bus_id)
                break
            except DeviceHeld:
                if _users(ccw.dasd(bus_id)) or clock() >= patient:
                    raise
                await events.wait(lambda event: _concerns(event, bus_id), min(1.0, patient - clock()))
        if await _until(lambda: _is_offline(bus_id), bus_id, events, end - clock()) is None:
            raise DasdAbsent(device=bus_id, reason="it is still online after it was set offline")
    if ignored:
        await call(verbs.ccw_ignore, bus_id)
    return done


def state_of(bus_id: str, uid: str) -> str:
    """Empty when the DASD is there and well; else what is wrong, for people."""
    dasd = ccw.dasd(bus_id)
    if dasd is None or not dasd.online:
        return "it is not online"
    if dasd.availability != ccw.GOOD:
        return f"the channel says: {dasd.availability}"
    if uid and dasd.uid != uid:
        return f"it is {dasd.uid} now"
    return "" if dasd.status == "online" else f"its status is {dasd.status}"


async def _appear(bus_id: str, events: udev.Events, deadline: float) -> None:
    """The device is known to the kernel and bound to its driver."""
    freed = await call(verbs.ccw_release, bus_id)
    # The channel subsystem has settled by now: what it knows has yet to get its driver, what not will hardly come.
    coming = freed and ccw.device(bus_id) is not None
    found = await _until(lambda: ccw.dasd(bus_id), bus_id, events, deadline if coming else min(deadline, _APPEAR_S))
    if found is None:
        known = ccw.device(bus_id)
        reason = "no such device is known to the channel subsystem" if known is None else f"it is {known.device_type}"
        raise DasdAbsent(device=bus_id, reason=reason)
    if found.availability != ccw.GOOD:
        raise DasdAbsent(device=bus_id, reason=f"the channel says: {found.availability}")


async def _settled(bus_id: str, events: udev.Events, deadline: float) -> ccw.Dasd:
    def ready() -> ccw.Dasd | None:
        dasd = ccw.dasd(bus_id)
        return dasd if dasd is not None and dasd.online and dasd.disk and dasd.status in _SETTLED else None

    found = await _until(ready, bus_id, events, deadline)
    if found is None:
        now = ccw.dasd(bus_id)
        reason = f"after {deadline:g} s its status is {now.status}" if now else "it went away while it came online"
        raise DasdAbsent(device=bus_id, reason=reason)
    return found


def _judge(dasd: ccw.Dasd, order: Order) -> None:
    if order.uid and dasd.uid != order.uid:
        raise DasdForeign(device=order.bus_id, found=dasd.uid or "without a unique id", wanted=order.uid)
    if dasd.read_only != order.read_only:
        raise DasdForeign(device=order.bus_id, found="online in another mode", wanted="the one that was asked for")
    if dasd.status == "unformatted" and (order.format is None or order.read_only):
        raise DasdUnformatted(device=order.bus_id)


async def _format(dasd: ccw.Dasd, order: Order, deadline: float, progress: Callable[[int, int], None]) -> ccw.Dasd:
    clock = asyncio.get_running_loop().time
    patient = clock() + min(deadline, _FORMAT_HELD_S)
    async with current().events(*_SUBSYSTEMS) as events:
        while error := await _formatted(dasd, order, progress):
            if _HELD not in error or clock() >= patient:
                raise FormatFailed(device=order.bus_id, reason=error)
            await events.wait(lambda event: _concerns(event, order.bus_id), min(1.0, patient - clock()))

        def formatted() -> ccw.Dasd | None:
            found = ccw.dasd(order.bus_id)
            return found if found is not None and found.status == "online" and found.size else None

        found = await _until(formatted, order.bus_id, events, deadline)
    if found is None:
        raise FormatFailed(device=order.bus_id, reason="the kernel still shows no size afterwards")
    return found


async def _formatted(dasd: ccw.Dasd, order: Order, progress: Callable[[int, int], None]) -> str:
    """Let dasdfmt do it; empty, or what it said when it failed."""
    await call(verbs.dasd_format, order.bus_id, dasd.uid, order.format or "")
    done = -1
    while True:
        now = await call(verbs.dasd_format_wait, order.bus_id, max(done, 0), _FORMAT_NEWS_S)
        done = int(now["done"])
        progress(done, int(now["total"]))
        if not now["running"]:
            return str(now["error"])


async def _until(look: Callable[[], T | None], bus_id: str, events: udev.Events, deadline: float) -> T | None:
    """What `look` finds, asked again after each event of the device; None when the time is over."""
    clock = asyncio.get_running_loop().time
    end = clock() + deadline
    while (found := look()) is None:
        if await events.wait(lambda event: _concerns(event, bus_id), end - clock()) is None:
            return look()
    return found


def _concerns(event: udev.Event, bus_id: str) -> bool:
    return f"/{bus_id}" in event.path


def _is_offline(bus_id: str) -> bool | None:
    found = ccw.dasd(bus_id)
    return True if found is None or not (found.online or found.disk) else None


def _refuse_in_use(dasd: ccw.Dasd | None) -> None:
    users = _users(dasd)
    if dasd is not None and users:
        raise DeviceHeld(device=dasd.device, holders=", ".join(users))


def _users(dasd: ccw.Dasd | None) -> tuple[str, ...]:
    if dasd is None or not dasd.disk:
        return ()
    return sysfs.users_of(dasd.disk, current().sys, current().proc)
