"""What connectors to SCSI disks share: what a disk has to say of itself, and the multipath map over several of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from agent.connectors.base import DEADLINE, RemoteDevice
from agent.connectors.errors import DeviceMismatch, DeviceNotReady
from agent.host import scsi, sysfs, udev
from agent.host.kernel import current
from agent.privsep import multipath as verbs
from agent.privsep.client import call
from agent.privsep.waiting import until
from agent.wire.jobs import Connection

_MAP_HINT_S, _GATHER_S, _ANSWER_S = 1.0, 10.0, 10.0


def claim(connection: Connection, disk: scsi.Disk) -> str:
    """What is wrong with what a disk says of itself; empty when it is what the target promised."""
    if disk.identity != connection.identity:
        return f"it says it is {disk.identity or 'nothing'}, promised is {connection.identity}"
    if connection.serial and disk.serial != connection.serial:
        return f"its serial number is {disk.serial or 'none'}, promised is {connection.serial}"
    if disk.size < connection.size_bytes:
        return f"it has {disk.size} bytes, promised are {connection.size_bytes}"
    return ""


def gathered(connection: Connection, disks: Sequence[scsi.Disk], sys: Path) -> RemoteDevice | None:
    """The proven ones among these disks as one device: their map where there is one, else the first of them."""
    proven = [disk for disk in disks if disk.name and not claim(connection, disk)]
    if not proven:
        return None
    names = tuple(disk.name for disk in proven)
    over = scsi.multipath_map(connection.identity, sys)
    name, size = (over.name, over.size) if over and set(names) & set(over.below) else (names[0], proven[0].size)
    return RemoteDevice(name, size, sysfs.diskseq(name, sys), sysfs.is_read_only(name, sys), names)


def only(disk: scsi.Disk) -> RemoteDevice:
    """One disk that has no map over it."""
    sys = current().sys
    return RemoteDevice(disk.name, disk.size, disk.diskseq, sysfs.is_read_only(disk.name, sys), (disk.name,))


async def mapped(
    connection: Connection, present: Callable[[], RemoteDevice | None], events: udev.Events, end: float
) -> RemoteDevice:
    """The map over what is present, which the multipath daemon makes by itself, or when it is told. DeviceNotReady."""

    def ready() -> RemoteDevice | None:
        found = present()
        return found if found is not None and found.name not in found.paths and found.size else None

    clock = asyncio.get_running_loop().time
    found = await until(ready, events, min(end, clock() + _MAP_HINT_S))
    if found is None and (known := present()) is not None:
        for name in known.paths:
            await call(verbs.multipath_add, f"/dev/{name}")
        found = await until(ready, events, end)
    if found is None:
        reason = "the multipath daemon made no map of its paths"
        raise DeviceNotReady(device=connection.target, seconds=round(DEADLINE), reason=reason)
    return found


async def freed(connection: Connection, found: Iterable[scsi.Disk]) -> list[str]:
    """Take proven disks out of maps of volumes that stood at their LUNs before; returns the names of those that were.

    The multipath daemon may gather a disk by what it remembers of the address, later than any look of ours.
    """
    sys = current().sys
    strange = [one.name for one in found if one.name and set(scsi.maps_over(one.name, sys)) - {connection.identity}]
    for name in strange:
        await call(verbs.multipath_drop, f"/dev/{name}")
    return strange


async def filled(
    connection: Connection, present: Callable[[], RemoteDevice | None], events: udev.Events, end: float
) -> None:
    """Give the multipath daemon a moment to add every path to the map, which it does one by one."""

    def all_in() -> bool | None:
        found, over = present(), scsi.multipath_map(connection.identity, current().sys)
        return (found is not None and over is not None and set(found.paths) <= set(over.below)) or None

    await until(all_in, events, min(end, asyncio.get_running_loop().time() + _GATHER_S))


async def asked(questions: Iterable[Awaitable[object]]) -> None:
    """Have the kernel read disks anew, all at once; one that does not answer soon is told by its state."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            await asyncio.gather(*questions, return_exceptions=True)


def wrong(connection: Connection, found: Sequence[scsi.Disk], sys: Path) -> tuple[str, ...]:
    """What is wrong with disks in use and with the map over them, for people."""
    alive = [disk for disk in found if disk.name and disk.state == "running"]
    told = [f"/dev/{disk.name}: {why}" for disk in alive if (why := claim(connection, disk))]
    over = scsi.multipath_map(connection.identity, sys)
    if over is not None:
        small = (disk for disk in alive if disk.name in over.below and disk.size < over.size)
        told += [f"/dev/{disk.name} has {disk.size} bytes, the map over it {over.size}" for disk in small]
    return tuple(told)


async def grown(connection: Connection, found: RemoteDevice, disks: Sequence[scsi.Disk], size: int) -> None:
    """After each path was looked at anew: all have `size` bytes, and the map over them follows. DeviceMismatch."""
    for disk in disks:
        if disk.size < size:
            reason = f"it has {disk.size} bytes after the rescan, not {size}"
            raise DeviceMismatch(device=f"/dev/{disk.name}", attachment=connection.target, reason=reason)
    if found.name not in found.paths:
        now = await call(verbs.multipath_resize, connection.identity)
        if now < size:
            reason = f"the map has {now} bytes, its paths have {size}"
            raise DeviceMismatch(device=found.device, attachment=connection.target, reason=reason)
