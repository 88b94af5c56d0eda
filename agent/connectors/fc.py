"""The Fibre Channel connector: every path that the fabric gives, one disk of them, nothing waited for but events.

How a path is asked for and given up is the business of the module that knows this host's ports (`fc_ways`). A path that
does not come costs a healthy one nothing: where the kernel says why, it is not waited for; else for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from agent.base.errors import BrickyardError
from agent.connectors import fc_ways
from agent.connectors import scsi_disks as disks
from agent.connectors.base import DEADLINE, Look, RemoteDevice
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NoFabricPath, NotAttached, PathDown
from agent.connectors.fc_ways import Way
from agent.host import scsi, sysfs, udev
from agent.host.kernel import current
from agent.privsep import multipath as verbs
from agent.privsep.client import call
from agent.privsep.errors import DeviceHeld, KernelRefused
from agent.privsep.waiting import HELD_S, Finished, patiently, until
from agent.wire.jobs import Connection

_SUBSYSTEMS = ("block", "scsi", "ccw", "fc_remote_ports")
_GATHER_S, _ASK_S = 3.0, 5.0
Disks = dict[Way, scsi.Disk]


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
            await self._purge(connection)
            before = set(fc_ways.known(connection))
            try:
                async with current().events(*_SUBSYSTEMS) as events:
                    return await self._appear(connection, await fc_ways.begin(connection), events, end)
            except BrickyardError:
                # What was promised is not there: nothing of it may stay, least of all a disk of somebody else.
                for path in set(fc_ways.known(connection)) - before:
                    with contextlib.suppress(BrickyardError):
                        await self._clear(connection, path)
                raise

    async def detach(self, connection: Connection, *, deadline: float = DEADLINE) -> bool:
        async with self._lock(connection):
            try:
                return await self._remove(connection, asyncio.get_running_loop().time() + deadline)
            except BrickyardError as error:
                left = ", ".join(_left(connection)) or "its map"
                raise DetachIncomplete(attachment=connection.target, left=left, reason=str(error)) from error

    async def cut(self, connection: Connection) -> bool:
        """See `agent.connectors.base.Cutting`: from the map over several paths, or from one path alone."""
        async with self._lock(connection):
            if await call(verbs.multipath_cut, connection.identity):
                return True
            return any([await path.cut() for path in _own(connection)])

    async def resize(self, connection: Connection, size: int) -> RemoteDevice:
        async with self._lock(connection):
            found = self.present(connection)
            if found is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            there = _disks(fc_ways.known(connection))
            if down := [f"{path.adapter} {path.wwpn}" for path, disk in there.items() if disk.state != "running"]:
                raise PathDown(target=connection.target, paths=", ".join(down))
            for path in there:
                await path.rescan()
            await disks.grown(connection, found, list(_disks(tuple(there)).values()), size)
            now = self.present(connection)
            if now is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            return now

    def present(self, connection: Connection, sys: Path = sysfs.SYS) -> RemoteDevice | None:
        return _gathered(connection, fc_ways.known(connection))

    async def look(self, connection: Connection, *, afresh: bool = False) -> Look:
        async with self._lock(connection):
            if afresh:
                there = _disks(await asyncio.to_thread(fc_ways.known, connection))
                await disks.asked(path.rescan() for path, disk in there.items() if disk.state == "running")
            return await asyncio.to_thread(self._look, connection)

    async def mend(self, connection: Connection) -> int:
        async with self._lock(connection):
            before = set(fc_ways.known(connection))
            async with current().events(*_SUBSYSTEMS) as events:
                asked = await fc_ways.ask(_missing(connection))
                end = asyncio.get_running_loop().time() + _GATHER_S
                await until(lambda: all(path.disk() or path.hopeless() for path in asked) or None, events, end)
                made = 0
                for path, disk in _disks(asked).items():
                    if path not in before and (wrong := disks.claim(connection, disk)):
                        await self._clear(connection, path)
                        raise DeviceMismatch(device=f"/dev/{disk.name}", attachment=connection.target, reason=wrong)
                    made += 1
                if made:
                    await disks.filled(connection, lambda: self.present(connection), events, end)
        return made

    def _look(self, connection: Connection) -> Look:
        there, device = _disks(fc_ways.known(connection)), self.present(connection)
        down = (
            f"{path.adapter} {path.wwpn} is {disk.state}" for path, disk in there.items() if disk.state != "running"
        )
        missing = (f"{path.adapter} {path.wwpn} shows no disk" for path in _missing(connection))
        return Look(
            paths=(*(disk.name for disk in there.values()), *((device.name,) if device is not None else ())),
            size=device.size if device is not None else 0,
            wrong=disks.wrong(connection, list(there.values()), current().sys),
            down=tuple(down),
            missing=tuple(missing),
        )

    async def _appear(
        self, connection: Connection, paths: tuple[Way, ...], events: udev.Events, end: float
    ) -> RemoteDevice:
        """The device over all paths that came; the first one ends the wait for those that tell why they do not."""
        finished = Finished(events, ((disk.name, disk.diskseq) for disk in _disks(paths).values()))
        clock = asyncio.get_running_loop().time

        def ready() -> Disks:
            found = {path: disk for path, disk in _disks(paths).items() if disk.size}
            return {path: disk for path, disk in found.items() if finished.holds(disk.name, disk.diskseq)}

        def settled() -> Disks | None:
            found = ready()
            return found if all(path in found or path.hopeless() for path in paths) else None

        while not ready():
            event = await events.wait(lambda _: True, max(0.0, min(_ASK_S, end - clock())))
            if event is not None:
                finished.heard(event)
            elif clock() >= end and not ready():
                raise NoFabricPath(target=connection.target, reason=_why(paths))
            # A port that comes late is asked then, and an array may be late with its mapping.
            if event is None or event.subsystem == "fc_remote_ports":
                paths = await fc_ways.ask(paths)
        found = await until(settled, events, min(end, clock() + _GATHER_S), finished.heard) or ready()
        for disk in found.values():
            if wrong := disks.claim(connection, disk):
                raise DeviceMismatch(device=f"/dev/{disk.name}", attachment=connection.target, reason=wrong)
        return await self._one(connection, found, events, end)

    async def _one(self, connection: Connection, found: Disks, events: udev.Events, end: float) -> RemoteDevice:
        def present() -> RemoteDevice | None:
            return _gathered(connection, tuple(found))

        for name in await disks.freed(connection, found.values()):
            await call(verbs.multipath_add, f"/dev/{name}")
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
        """What the kernel remembers of a LUN may be of a volume that was there before: each is read anew.

        A disk that has become another one is removed, also as the promised one: what stands on it is of the old one.
        One that was and is another volume's stays as it is, since somebody may have it open. DeviceMismatch.
        """
        sys = current().sys
        for path, disk in _disks(fc_ways.known(connection)).items():
            if disk.state == "running":
                await path.rescan()
            now = path.disk() or disk
            stale = now.identity != disk.identity or set(scsi.maps_over(now.name, sys)) - {now.identity}
            wrong = disks.claim(connection, now)
            if stale or (wrong and disk.state != "running"):
                await self._clear(connection, path)
            elif wrong:
                reason = f"another volume stands at its LUN: {wrong}"
                raise DeviceMismatch(device=f"/dev/{now.name}", attachment=connection.target, reason=reason)

    async def _clear(self, connection: Connection, path: Way) -> None:
        """Remove the disk of another volume, unless it is in use; the multipath daemon may have taken it already."""
        kernel, disk = current(), path.disk()
        try:
            for over in scsi.maps_over(disk.name, kernel.sys) if disk is not None else ():
                await call(verbs.multipath_remove, over)
            await patiently(path.remove, asyncio.get_running_loop().time() + HELD_S)
        except (DeviceHeld, KernelRefused) as error:
            name = disk.name if disk is not None else path.wwpn
            reason = f"another volume stands at its LUN and can not be removed ({str(error).rstrip('.')})"
            raise DeviceMismatch(device=f"/dev/{name}", attachment=connection.target, reason=reason) from error

    async def _remove(self, connection: Connection, end: float) -> bool:
        there = await patiently(lambda: call(verbs.multipath_remove, connection.identity), end)
        await disks.freed(connection, _disks(_own(connection)).values())
        there |= await patiently(lambda: fc_ways.remove(_own(connection)), end)
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


def _disks(paths: Sequence[Way]) -> Disks:
    return {path: disk for path in paths if (disk := path.disk()) is not None}


def _gathered(connection: Connection, paths: Sequence[Way]) -> RemoteDevice | None:
    found = disks.gathered(connection, list(_disks(paths).values()), current().sys)
    return found and replace(found, how="/".join(sorted({path.mode for path in paths})))


def _own(connection: Connection) -> list[Way]:
    """The ways whose disk is the promised one, or says nothing: by now another volume may stand at the LUN, in use."""
    there = ((path, path.disk()) for path in fc_ways.known(connection))
    return [path for path, disk in there if disk is None or disk.identity in {"", connection.identity}]


def _missing(connection: Connection) -> list[Way]:
    """Ways that could give a disk by now, and do not, where several gather to a map."""
    if scsi.multipath_map(connection.identity, current().sys) is None:
        return []
    return [path for path in fc_ways.possible(connection) if path.disk() is None and not path.hopeless()]


def _left(connection: Connection) -> list[str]:
    return [each for path in _own(connection) for each in path.left()]


def _why(paths: Sequence[Way]) -> str:
    silent = "the array shows no such LUN to this port"
    return "; ".join(path.hopeless() or f"{path.adapter} {path.wwpn}: {silent}" for path in paths)


CONNECTOR = FcConnector()
