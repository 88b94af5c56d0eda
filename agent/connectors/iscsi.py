"""The iSCSI connector: sessions made without discovery, one LUN looked at, nothing waited for but events.

With several portals and a multipath daemon every portal becomes a path of one map; else the portals are tried in their
order. A portal that is down costs a healthy one nothing: it goes on trying by itself, and is tried again by `mend`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from pathlib import Path
from weakref import WeakValueDictionary

from agent.base.errors import BrickyardError, Temporary
from agent.base.log import get_logger
from agent.connectors import iscsi_paths as paths
from agent.connectors import scsi_disks as disks
from agent.connectors.base import DEADLINE, Look, RemoteDevice
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NoPath, NotAttached, PathDown
from agent.connectors.probing import answering, each, hear, need_device, place, worth_trying
from agent.host import scsi, sysfs, udev
from agent.privsep import iscsi as verbs
from agent.privsep import multipath
from agent.privsep.client import call
from agent.privsep.errors import DeviceHeld, LoginRefused, SessionForeign
from agent.privsep.waiting import patiently
from agent.wire.jobs import Connection, Portal

log = get_logger(__name__)
_LATE_S = 90.0
Reach = asyncio.Task[scsi.Disk]


class IscsiConnector:
    """See `agent.connectors.base.Connector`."""

    protocol = "iscsi"

    def __init__(self, interface: str = "default") -> None:
        self.interface = interface
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._late: dict[str, set[Reach]] = {}

    async def attach(
        self, connection: Connection, *, secret: bytes | None = None, deadline: float = DEADLINE
    ) -> RemoteDevice:
        end = asyncio.get_running_loop().time() + deadline
        async with self._lock(connection):
            await need_device(connection)
            known = self.present(connection)
            try:
                if len(connection.portals) > 1 and scsi.multipathd_listens():
                    return await self._by_all(connection, secret, end)
                return await self._by_one(connection, secret, end)
            except BrickyardError:
                # What was promised is not there: nothing of it may stay, least of all a device of somebody else. What
                # was proven before is in use, perhaps by a process that no file of the kernel tells of.
                if known is None:
                    with contextlib.suppress(BrickyardError):
                        await self._remove(connection, end)
                raise

    async def detach(self, connection: Connection, *, deadline: float = DEADLINE) -> bool:
        async with self._lock(connection):
            return await self._remove(connection, asyncio.get_running_loop().time() + deadline)

    async def cut(self, connection: Connection) -> bool:
        """See `agent.connectors.base.Cutting`."""
        async with self._lock(connection):
            there = await call(multipath.multipath_cut, connection.identity)
            for session in scsi.sessions(connection.target):
                disk = session.disk(connection.lun or 0)
                if disk is not None:
                    await call(multipath.multipath_drop, f"/dev/{disk.name}")
                    there |= await call(verbs.scsi_cut, disk.address)
            return there

    async def resize(self, connection: Connection, size: int) -> RemoteDevice:
        async with self._lock(connection):
            found = self.present(connection)
            if found is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            sessions = [one for one in scsi.sessions(connection.target) if one.disk(connection.lun or 0)]
            down = [one for one in sessions if not one.healthy]
            if down:
                told = ", ".join(f"{one.address}:{one.port} is {one.state.lower()}" for one in down)
                raise PathDown(target=connection.target, paths=told)
            paths_ = [await self._grown(connection, name) for name in found.paths]
            await disks.grown(connection, found, paths_, size)
            grown = self.present(connection)
            if grown is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            return grown

    def present(self, connection: Connection, sys: Path = sysfs.SYS) -> RemoteDevice | None:
        found = [one.disk(connection.lun or 0) for one in scsi.sessions(connection.target, sys)]
        return disks.gathered(connection, [disk for disk in found if disk is not None], sys)

    async def look(self, connection: Connection, *, afresh: bool = False) -> Look:
        async with self._lock(connection):
            if afresh:
                here = [one for one in scsi.sessions(connection.target) if one.healthy]
                known = [disk for one in here if (disk := one.disk(connection.lun or 0)) is not None]
                await disks.asked(call(verbs.scsi_rescan, disk.address) for disk in known)
            return await asyncio.to_thread(self.seen, connection)

    async def mend(self, connection: Connection) -> int:
        wanted = await asyncio.to_thread(self._missing, connection)
        ready = await answering(wanted, connection.transport)
        end = asyncio.get_running_loop().time() + DEADLINE

        async def join(portal: Portal) -> bool:
            disk = await paths.rejoin(connection, portal, end)
            async with udev.subscribed() as events:
                await disks.filled(connection, lambda: self.present(connection), events, end)
            over = scsi.multipath_map(connection.identity)
            if over is not None and disk.name not in over.below:
                await call(multipath.multipath_add, f"/dev/{disk.name}")
            return True

        async with self._lock(connection):
            return await each(set(ready) & set(self._missing(connection)), join)

    def seen(self, connection: Connection, sys: Path = sysfs.SYS) -> Look:
        """What sysfs shows of it. Blocking reads, no effects."""
        sessions = scsi.sessions(connection.target, sys)
        found = [(one, disk) for one in sessions if (disk := one.disk(connection.lun or 0)) is not None]
        device = self.present(connection, sys)
        down = [
            f"the session at {one.address}:{one.port} is {one.state.lower()}" for one in sessions if not one.healthy
        ]
        down += [f"/dev/{disk.name} is {disk.state}" for one, disk in found if one.healthy and disk.state != "running"]
        return Look(
            paths=(*(disk.name for _, disk in found), *((device.name,) if device is not None else ())),
            size=device.size if device is not None else 0,
            wrong=disks.wrong(connection, [disk for _, disk in found], sys),
            down=tuple(down) if found else (),
            missing=tuple(f"there is no session at {one.address}:{one.port}" for one in self._missing(connection, sys)),
        )

    def _missing(self, connection: Connection, sys: Path = sysfs.SYS) -> tuple[Portal, ...]:
        """Portals without a path, where several gather to a map; not those at which a log-in goes on."""
        if scsi.multipath_map(connection.identity, sys) is None or self._late.get(connection.target):
            return ()
        there = [
            one for one in scsi.sessions(connection.target, sys) if one.disk(connection.lun or 0) or not one.healthy
        ]
        known = {(one.address, one.port) for one in there}
        return tuple(one for one in connection.portals if known and place(one) not in known)

    async def _by_one(self, connection: Connection, secret: bytes | None, end: float) -> RemoteDevice:
        if len(connection.portals) > 1:
            log.warning("one portal of several is used: multipathd does not run", target=connection.target)
        there = {(one.address, one.port) for one in scsi.sessions(connection.target)}
        portals, reasons = await worth_trying(connection.portals, there, connection.transport)
        async with udev.subscribed() as events:
            for portal in portals:
                try:
                    disk = await paths.reach(connection, portal, self._login(secret, multipath=False), end)
                except Temporary as error:
                    reasons.append(str(error))
                    if place(portal) not in there:
                        await self._leave(connection, portal, end)
                    continue
                if await asyncio.to_thread(udev.claimed_by_multipath, disk.name):
                    return await disks.mapped(connection, lambda: self.present(connection), events, end)
                return disks.only(disk)
        raise NoPath(target=connection.target, reason=" ".join(reasons))

    async def _leave(self, connection: Connection, portal: Portal, end: float) -> None:
        """Nothing of a portal stays that was tried in vain: neither a session without the disk, nor its record."""
        session = paths.session_at(connection, portal)
        with contextlib.suppress(BrickyardError):
            if session is not None:
                await self._end(connection, session, end)
            await call(verbs.iscsi_forget, connection.target, [(portal.address, portal.port)])

    async def _by_all(self, connection: Connection, secret: bytes | None, end: float) -> RemoteDevice:
        tasks = {
            asyncio.create_task(paths.reach(connection, portal, self._login(secret, multipath=True), end)): portal
            for portal in connection.portals
        }
        late = self._late.setdefault(connection.target, set())
        late.update(tasks)
        for task in tasks:
            task.add_done_callback(late.discard)
            task.add_done_callback(_noted)
        heard: set[Portal] = set()
        async with udev.subscribed() as events:
            asking = asyncio.create_task(hear(connection.portals, connection.transport, heard))
            try:
                await _first_of(tasks)
                found = await disks.mapped(connection, lambda: self.present(connection), events, end)
            finally:
                asking.cancel()
            # A portal that answers has been heard by now, or has its session; one that does not is not waited for.
            begun = [
                task
                for task, portal in tasks.items()
                if portal in heard or paths.session_at(connection, portal) is not None
            ]
            if begun:
                await asyncio.wait(begun, timeout=max(0.0, end - asyncio.get_running_loop().time()))
            await disks.filled(connection, lambda: self.present(connection), events, end)
            for task in tasks:
                if task.done() and isinstance(task.exception(), (DeviceMismatch, LoginRefused, SessionForeign)):
                    await task
        return self.present(connection) or found

    async def _grown(self, connection: Connection, name: str) -> scsi.Disk:
        for session in scsi.sessions(connection.target):
            disk = session.disk(connection.lun or 0)
            if disk is not None and disk.name == name:
                await call(verbs.scsi_rescan, disk.address)
                return scsi.disk(disk.address)
        raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)

    async def _remove(self, connection: Connection, end: float) -> bool:
        if late := self._late.pop(connection.target, None):
            # A log-in under way can not be taken back; ended, its session is removed with the others.
            await asyncio.wait(late, timeout=_LATE_S)
        there = False
        try:
            if scsi.multipath_map(connection.identity) is not None:
                there |= await patiently(lambda: call(multipath.multipath_remove, connection.identity), end)
            there |= await self._log_out(connection, end)
            if scsi.sessions(connection.target):
                there |= await self._log_out(connection, end)  # of what a log-in has left that outlived its agent
        except BrickyardError as error:
            left = _left(connection)
            raise DetachIncomplete(
                attachment=connection.target, left=", ".join(left) or "its node record", reason=str(error)
            ) from error
        if left := _left(connection):
            reason = "the kernel still shows it"
            raise DetachIncomplete(attachment=connection.target, left=", ".join(left), reason=reason)
        return there

    async def _log_out(self, connection: Connection, end: float) -> bool:
        there = False
        for session in scsi.sessions(connection.target):
            there |= await self._end(connection, session, end)
        if not scsi.sessions(connection.target):
            portals = [(portal.address, portal.port) for portal in connection.portals]
            there |= await call(verbs.iscsi_forget, connection.target, portals)
        return there

    async def _end(self, connection: Connection, session: scsi.Session, end: float) -> bool:
        disk = session.disk(connection.lun or 0)
        others = [one for one in session.disks if one.lun != (connection.lun or 0)]
        last = ""
        if disk is not None:
            if session.healthy and not others and not disks.claim(connection, disk):
                last = disk.address
            elif session.healthy:
                await patiently(lambda: _cut(connection, disk), end)
            else:
                if users := sysfs.users_of(disk.name):
                    raise DeviceHeld(device=f"/dev/{disk.name}", holders=", ".join(users))
                await call(verbs.iscsi_give_up, session.number)
                if others:
                    await call(verbs.scsi_delete, disk.address, False)
        if others:
            return disk is not None
        out = await patiently(lambda: call(verbs.iscsi_logout, session.number, connection.target, last), end)
        return out or disk is not None

    def _login(self, secret: bytes | None, *, multipath: bool) -> paths.How:
        return paths.How(secret, multipath, self.interface)

    def _lock(self, connection: Connection) -> asyncio.Lock:
        found = self._locks.get(connection.target)
        if found is None:
            found = self._locks[connection.target] = asyncio.Lock()
        return found


async def _cut(connection: Connection, disk: scsi.Disk) -> bool:
    """Remove a disk from the kernel. The multipath daemon may have made a map of one that is not the promised one."""
    if disks.claim(connection, disk):
        await call(multipath.multipath_drop, f"/dev/{disk.name}")
    return await call(verbs.scsi_delete, disk.address, True)


def _noted(task: Reach) -> None:
    """A path that fails after the attach has ended is told in the log; what it made, `reach` has removed itself."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a path could not be made", reason=str(error))


async def _first_of(tasks: Collection[Reach]) -> None:
    """Wait for the first path that is there; when there is none, raise what says most."""
    left = set(tasks)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        if any(task.exception() is None for task in done):
            return
    errors = [error for task in tasks if (error := task.exception()) is not None]
    raise next((error for error in errors if not isinstance(error, Temporary)), errors[0])


def _left(connection: Connection) -> list[str]:
    found = []
    over = scsi.multipath_map(connection.identity)
    if over is not None:
        found.append(_used(over.name, f"/dev/mapper/{over.title}"))
    for session in scsi.sessions(connection.target):
        disk = session.disk(connection.lun or 0)
        if disk is not None:
            found.append(_used(disk.name, f"/dev/{disk.name}"))
        if all(one.lun == (connection.lun or 0) for one in session.disks):
            found.append(f"session {session.number} at {session.address}:{session.port}")
    return found


def _used(name: str, shown: str) -> str:
    return f"{shown} ({', '.join(sysfs.users_of(name)) or 'no visible user'})"


CONNECTOR = IscsiConnector()
