"""The Fibre Channel connector: every path that the fabric gives, one disk of them, nothing waited for but events.

How a path is asked for and given up is the business of the module that knows this host's ports (`agent.zfcp.attach`:
FCP devices of IBM Z). A path that does not come costs a healthy one nothing: where the kernel says why, it is not
waited for; else for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from agent.base.errors import BrickyardError
from agent.connectors import scsi_disks as disks
from agent.connectors.base import DEADLINE, RemoteDevice
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NoFabricPath, NotAttached, PathDown
from agent.connectors.waiting import patiently, until
from agent.host import scsi, sysfs, udev
from agent.host.kernel import current
from agent.privsep import multipath as verbs
from agent.privsep.client import call
from agent.wire.jobs import Connection
from agent.zfcp import attach as zfcp
from agent.zfcp.attach import FcpPath
from agent.zfcp.lun import Addressing

_SUBSYSTEMS = ("block", "scsi", "ccw", "fc_remote_ports")
_GATHER_S = 3.0
Disks = dict[FcpPath, scsi.Disk]


class FcConnector:
    """See `agent.connectors.base.Connector`. `Connection.fabric` says which ports of the array, and which LUN."""

    protocol = "fc"

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def attach(
        self, connection: Connection, *, secret: bytes | None = None, deadline: float = DEADLINE
    ) -> RemoteDevice:
        end = asyncio.get_running_loop().time() + deadline
        async with self._lock(connection):
            try:
                async with current().events(*_SUBSYSTEMS) as events:
                    await self._purge(connection)
                    paths = await zfcp.begin(*_ports(connection))
                    return await self._appear(connection, paths, events, end)
            except BrickyardError:
                # What was promised is not there: nothing of it may stay, least of all a disk of somebody else.
                with contextlib.suppress(BrickyardError):
                    await self._remove(connection, end)
                raise

    async def detach(self, connection: Connection, *, deadline: float = DEADLINE) -> bool:
        async with self._lock(connection):
            try:
                return await self._remove(connection, asyncio.get_running_loop().time() + deadline)
            except BrickyardError as error:
                left = ", ".join(_left(connection)) or "its map"
                raise DetachIncomplete(attachment=connection.target, left=left, reason=str(error)) from error

    async def resize(self, connection: Connection, size: int) -> RemoteDevice:
        async with self._lock(connection):
            found = self.present(connection)
            if found is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            there = _disks(ways(connection))
            if down := [f"{path.bus_id} {path.wwpn}" for path, disk in there.items() if disk.state != "running"]:
                raise PathDown(target=connection.target, paths=", ".join(down))
            for path in there:
                await path.rescan()
            await disks.grown(connection, found, list(_disks(tuple(there)).values()), size)
            now = self.present(connection)
            if now is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            return now

    def present(self, connection: Connection, sys: Path = sysfs.SYS) -> RemoteDevice | None:
        return _gathered(connection, ways(connection))

    async def _appear(
        self, connection: Connection, paths: tuple[FcpPath, ...], events: udev.Events, end: float
    ) -> RemoteDevice:
        """The device over all paths that came; the first one ends the wait for those that tell why they do not."""
        told = {(disk.name, disk.diskseq) for disk in _disks(paths).values()}
        clock = asyncio.get_running_loop().time

        def ready() -> Disks:
            found = {path: disk for path, disk in _disks(paths).items() if disk.size}
            return {path: disk for path, disk in found.items() if not events.udevd or (disk.name, disk.diskseq) in told}

        def heard(event: udev.Event) -> None:
            if event.action != "remove":
                told.add((event.name, event.diskseq))

        def settled() -> Disks | None:
            found = ready()
            return found if all(path in found or path.hopeless() for path in paths) else None

        while not ready():
            event = await events.wait(lambda _: True, max(0.0, end - clock()))
            if event is None and not ready():
                raise NoFabricPath(target=connection.target, reason=_why(paths))
            if event is not None:
                heard(event)
                # A port that comes late gets its unit then.
                paths = tuple([await path.ask() for path in paths]) if event.subsystem == "fc_remote_ports" else paths
        found = await until(settled, events, min(end, clock() + _GATHER_S), heard) or ready()
        await self._prove(connection, found)
        return await self._one(connection, found, events, end)

    async def _prove(self, connection: Connection, found: Disks) -> None:
        for disk in found.values():
            if wrong := disks.claim(connection, disk):
                raise DeviceMismatch(device=f"/dev/{disk.name}", attachment=connection.target, reason=wrong)

    async def _one(self, connection: Connection, found: Disks, events: udev.Events, end: float) -> RemoteDevice:
        def present() -> RemoteDevice | None:
            return _gathered(connection, tuple(found))

        first = next(iter(found.values())).name
        several = len(found) > 1 and scsi.multipathd_listens(current().proc)
        if several or await asyncio.to_thread(current().multipath_claims, first):
            await disks.mapped(connection, present, events, end)
            await disks.filled(connection, present, events, end)
        device = present()
        if device is None:
            raise NoFabricPath(target=connection.target, reason="its disks went away again")
        return device

    async def _purge(self, connection: Connection) -> None:
        """What the kernel remembers of a LUN may be of a volume that was there before."""
        kernel = current()
        for path, disk in _disks(ways(connection)).items():
            if not disks.claim(connection, disk):
                continue
            await path.rescan()
            now = path.disk()
            if now is None or not disks.claim(connection, now):
                continue
            await call(verbs.multipath_drop, f"/dev/{now.name}")
            if users := sysfs.users_of(now.name, kernel.sys, kernel.proc):
                reason = f"another volume ({now.identity}) stands at its LUN and is in use by {', '.join(users)}"
                raise DeviceMismatch(device=f"/dev/{now.name}", attachment=connection.target, reason=reason)
            await path.remove()

    async def _remove(self, connection: Connection, end: float) -> bool:
        there = await patiently(lambda: call(verbs.multipath_remove, connection.identity), end)
        there |= await patiently(lambda: zfcp.remove(ways(connection)), end)
        async with current().events(*_SUBSYSTEMS) as events:
            gone = await until(lambda: not _left(connection) or None, events, end)
        if gone is None:
            reason = "the kernel still shows it"
            raise DetachIncomplete(attachment=connection.target, left=", ".join(_left(connection)), reason=reason)
        return there

    def _lock(self, connection: Connection) -> asyncio.Lock:
        found = self._locks.get(connection.identity)
        if found is None:
            found = self._locks[connection.identity] = asyncio.Lock()
        return found


def _ports(connection: Connection) -> tuple[list[zfcp.Port], Addressing]:
    fabric = connection.fabric
    if fabric is None:
        raise DeviceMismatch(device=connection.target, attachment=connection.target, reason="no port was given")
    return [(port.wwpn, port.lun) for port in fabric.ports], fabric.addressing


def ways(connection: Connection) -> tuple[FcpPath, ...]:
    """Every way to the volume of which the kernel shows something now, for people. Blocking reads."""
    return zfcp.known(*_ports(connection))


def _disks(paths: Sequence[FcpPath]) -> Disks:
    return {path: disk for path in paths if (disk := path.disk()) is not None}


def _gathered(connection: Connection, paths: Sequence[FcpPath]) -> RemoteDevice | None:
    found = disks.gathered(connection, list(_disks(paths).values()), current().sys)
    return found and replace(found, how="/".join(sorted({path.mode for path in paths})))


def _left(connection: Connection) -> list[str]:
    return [each for path in ways(connection) for each in path.left()]


def _why(paths: Sequence[FcpPath]) -> str:
    silent = "the array shows no such LUN to this port"
    return "; ".join(path.hopeless() or f"{path.bus_id} {path.wwpn}: {silent}" for path in paths)


CONNECTOR = FcConnector()
