"""The connector of NVMe by TCP and RDMA: a controller at every portal, one disk that the kernel makes of them, nothing
waited for but events.

A portal that is down costs a healthy one nothing: the attach does not wait for it, and `mend` tries it again. Without
the kernel's own multipath, one portal is used: the first that answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from agent.base.errors import BrickyardError, Temporary
from agent.base.log import get_logger
from agent.connectors.base import DEADLINE, Look, RemoteDevice
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, DeviceNotReady, NoPath, NotAttached, PathDown
from agent.connectors.probing import answering, each, need_device, place, worth_trying
from agent.host import nvme, sysfs, udev
from agent.privsep import nvme as verbs
from agent.privsep.client import call
from agent.privsep.errors import NoRdma, PrivilegeUnavailable
from agent.privsep.waiting import Finished, patiently, until
from agent.wire.jobs import Connection, Portal

log = get_logger(__name__)
_STALE_S, _ANSWER_S = 5.0, 10.0
_SUBSYSTEMS = ("block", "nvme")


class NvmeConnector:
    """See `agent.connectors.base.Connector`."""

    protocol = "nvme-tcp"

    def __init__(self, fail_io_s: int = 600) -> None:
        self.fail_io_s = fail_io_s
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._trying: dict[str, dict[asyncio.Task[bool], Portal]] = {}

    async def attach(
        self, connection: Connection, *, secret: bytes | None = None, deadline: float = DEADLINE
    ) -> RemoteDevice:
        end = asyncio.get_running_loop().time() + deadline
        async with self._lock(connection):
            await need_device(connection)
            known = nvme.subsystem(connection.target)
            await self._quiet(connection)
            try:
                async with udev.subscribed() as events:
                    if nvme.gathers_paths():
                        await self._by_all(connection)
                    else:
                        await self._by_one(connection)
                    return await self._appear(connection, known, events, end)
            except BrickyardError:
                await self._quiet(connection)
                if known is None:
                    # What was promised is not there: nothing of it may stay, least of all a disk of somebody else.
                    with contextlib.suppress(BrickyardError):
                        await call(verbs.nvme_disconnect, connection.target)
                raise

    async def detach(self, connection: Connection, *, deadline: float = DEADLINE) -> bool:
        async with self._lock(connection):
            await self._quiet(connection)
            return await self._remove(connection, asyncio.get_running_loop().time() + deadline)

    async def cut(self, connection: Connection) -> bool:
        """See `agent.connectors.base.Cutting`; not where its controllers serve other volumes of this host, too."""
        async with self._lock(connection):
            await self._quiet(connection)
            space = _space(connection, nvme.subsystem(connection.target))
            return space is not None and await call(verbs.nvme_cut, connection.target, space.name)

    async def resize(self, connection: Connection, size: int) -> RemoteDevice:
        async with self._lock(connection):
            found = nvme.subsystem(connection.target)
            if found is None or self.present(connection) is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            if not found.live:
                told = ", ".join(f"{one.address}:{one.port} is {one.state}" for one in found.controllers)
                raise PathDown(target=connection.target, paths=told)

            def grown() -> RemoteDevice | None:
                now = self.present(connection)
                return now if now is not None and now.size >= size else None

            async with udev.subscribed(subsystems=_SUBSYSTEMS) as events:
                await call(verbs.nvme_rescan, connection.target)
                device = await until(grown, events, asyncio.get_running_loop().time() + DEADLINE)
            if device is None:
                now = self.present(connection)
                reason = f"it has {now.size if now else 0} bytes after the rescan, not {size}"
                raise DeviceMismatch(device=connection.target, attachment=connection.target, reason=reason)
            return device

    def present(self, connection: Connection, sys: Path = sysfs.SYS) -> RemoteDevice | None:
        found = nvme.subsystem(connection.target, sys)
        space = _space(connection, found)
        if found is None or space is None or claim(connection, space):
            return None
        return _device(found, space)

    async def look(self, connection: Connection, *, afresh: bool = False) -> Look:
        async with self._lock(connection):
            found = nvme.subsystem(connection.target)
            if afresh and found is not None and found.live:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ANSWER_S):
                        await call(verbs.nvme_rescan, connection.target)
            return await asyncio.to_thread(self.seen, connection)

    async def mend(self, connection: Connection) -> int:
        wanted = await asyncio.to_thread(self._missing, connection)
        ready = await answering(wanted, connection.transport)
        async with self._lock(connection):
            still = set(ready) & set(self._missing(connection))
            return await each(still, partial(self._connect, connection))

    def seen(self, connection: Connection, sys: Path = sysfs.SYS) -> Look:
        """What sysfs shows of it. Blocking reads, no effects."""
        found = nvme.subsystem(connection.target, sys)
        space = _space(connection, found)
        if found is None:
            return Look()
        told = claim(connection, space) if space is not None else "the target has no such disk any more"
        down = tuple(
            f"the path by {one.address}:{one.port} is {one.state}" for one in found.controllers if not one.live
        )
        names = (*((space.name,) if space is not None else ()), *(one.name for one in found.controllers))
        missing = tuple(f"there is no path by {one.address}:{one.port}" for one in self._missing(connection, sys))
        return Look(names, space.size if space is not None else 0, (told,) if told else (), down, missing)

    def _missing(self, connection: Connection, sys: Path = sysfs.SYS) -> tuple[Portal, ...]:
        """Portals without a controller, where the kernel gathers several; not those at which a log-in goes on."""
        found = nvme.subsystem(connection.target, sys)
        if found is None or not nvme.gathers_paths(sys):
            return ()
        known = {(one.address, one.port) for one in found.controllers}
        trying = self._trying.get(connection.target, {}).values()
        return tuple(one for one in connection.portals if place(one) not in known and one not in trying)

    async def _by_all(self, connection: Connection) -> None:
        """One controller is there when this ends; log-ins at the other portals go on to their end by themselves."""
        tasks = {asyncio.create_task(self._connect(connection, portal)): portal for portal in connection.portals}
        self._trying.setdefault(connection.target, {}).update(tasks)
        for task in tasks:
            task.add_done_callback(partial(self._tried, connection.target))
        left = set(tasks)
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            if any(task.exception() is None for task in done):
                return
        errors = [error for task in tasks if (error := task.exception()) is not None]
        for error in errors:
            if not isinstance(error, Temporary) or all(isinstance(one, NoRdma) for one in errors):
                raise error
        raise NoPath(target=connection.target, reason=" ".join(str(error) for error in errors))

    async def _by_one(self, connection: Connection) -> None:
        if len(connection.portals) > 1:
            log.warning("one portal of several is used: nvme_core.multipath is off", target=connection.target)
        found = nvme.subsystem(connection.target)
        there = {(one.address, one.port) for one in found.controllers} if found is not None else set()
        portals, reasons = await worth_trying(connection.portals, there, connection.transport)
        for portal in portals:
            try:
                await self._connect(connection, portal)
            except Temporary as error:
                reasons.append(str(error))
            else:
                return
        raise NoPath(target=connection.target, reason=" ".join(reasons))

    async def _appear(
        self, connection: Connection, known: nvme.Subsystem | None, events: udev.Events, end: float
    ) -> RemoteDevice:
        """Wait for the namespace until udev is done with it, and prove it."""
        clock = asyncio.get_running_loop().time
        finished = Finished(events, ((one.name, one.diskseq) for one in known.namespaces) if known is not None else ())
        if known is not None:
            # What the kernel remembers of a namespace may be of a volume that was there before.
            await call(verbs.nvme_rescan, connection.target)
        made = nvme.subsystem(connection.target)

        def concerns(event: udev.Event) -> bool:
            return made is None or made.holds(event.path)

        def shown() -> nvme.Namespace | None:
            space = _space(connection, nvme.subsystem(connection.target))
            if space is None or not space.size or not space.identity:
                return None
            return space if finished.holds(space.name, space.diskseq) else None

        def right() -> nvme.Namespace | None:
            space = shown()
            return space if space is not None and not claim(connection, space) else None

        if await until(shown, events, end, finished.heard, concerns) is None:
            space = _space(connection, nvme.subsystem(connection.target))
            what = "udev sent no event of it" if space is not None else "the target has no such namespace"
            raise DeviceNotReady(device=f"the disk of {connection.target}", seconds=round(DEADLINE), reason=what)
        last = min(end, clock() + _STALE_S) if known is not None else 0.0
        space = await until(right, events, last, finished.heard, concerns)
        found = nvme.subsystem(connection.target)
        if space is None or found is None:
            wrong = shown()
            reason = claim(connection, wrong) if wrong is not None else "it has gone again"
            raise DeviceMismatch(
                device=f"/dev/{wrong.name}" if wrong else connection.target, attachment=connection.target, reason=reason
            )
        return _device(found, space)

    async def _remove(self, connection: Connection, end: float) -> bool:
        found = nvme.subsystem(connection.target)
        space = _space(connection, found)
        disk = space.name if space is not None else ""
        try:
            if found is None:
                if not await _ended_late(connection):
                    return False
            elif any(one != space for one in found.namespaces):
                if disk:
                    await patiently(lambda: call(verbs.nvme_release, connection.target, disk), end)
                return bool(disk)  # its controllers serve other volumes of this host
            else:
                await patiently(lambda: call(verbs.nvme_disconnect, connection.target, disk), end)
        except BrickyardError as error:
            raise DetachIncomplete(
                attachment=connection.target, left=_left(connection) or "nothing", reason=str(error)
            ) from error
        if nvme.subsystem(connection.target) is None:
            return True
        async with udev.subscribed(subsystems=_SUBSYSTEMS) as events:
            gone: Callable[[], bool | None] = lambda: nvme.subsystem(connection.target) is None or None  # noqa: E731
            if await until(gone, events, end) is None:
                reason = "the kernel still shows it"
                raise DetachIncomplete(attachment=connection.target, left=_left(connection), reason=reason)
        return True

    async def _connect(self, connection: Connection, portal: Portal) -> bool:
        by = "rdma" if connection.transport == "rdma" else "tcp"
        told = (connection.target, portal.address, portal.port, self.fail_io_s)
        return await call(verbs.nvme_connect, *told, transport=by)

    def _tried(self, target: str, task: asyncio.Task[bool]) -> None:
        portal = self._trying.get(target, {}).pop(task, None)
        if portal is not None and not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a portal does not answer", target=target, reason=str(error))

    async def _quiet(self, connection: Connection) -> None:
        """Nothing goes on in the background any more: a log-in under way can not be taken back, and is waited for."""
        if trying := self._trying.pop(connection.target, None):
            await asyncio.wait(trying)

    def _lock(self, connection: Connection) -> asyncio.Lock:
        found = self._locks.get(connection.target)
        if found is None:
            found = self._locks[connection.target] = asyncio.Lock()
        return found


def claim(connection: Connection, space: nvme.Namespace) -> str:
    """What is wrong with what a namespace says of itself; empty when it is what the target promised."""
    if space.identity != connection.identity:
        return f"it says it is {space.identity or 'nothing'}, promised is {connection.identity}"
    if space.size < connection.size_bytes:
        return f"it has {space.size} bytes, promised are {connection.size_bytes}"
    return ""


async def _ended_late(connection: Connection) -> bool:
    """End what a connect that outlived its agent, or its job, has made: until it ends the kernel may show nothing.

    Who may not call the verb has no such connect.
    """
    with contextlib.suppress(PrivilegeUnavailable):
        return nvme.available() and await call(verbs.nvme_disconnect, connection.target)
    return False


def _space(connection: Connection, found: nvme.Subsystem | None) -> nvme.Namespace | None:
    """The namespace at the promised number; without one, the one of the promised identity."""
    for one in found.namespaces if found is not None else ():
        if one.nsid == connection.nsid or (connection.nsid is None and one.identity == connection.identity):
            return one
    return None


def _device(found: nvme.Subsystem, space: nvme.Namespace) -> RemoteDevice:
    names = tuple(one.name for one in found.controllers)
    return RemoteDevice(space.name, space.size, space.diskseq, space.read_only, names)


def _left(connection: Connection) -> str:
    found = nvme.subsystem(connection.target)
    if found is None:
        return ""
    disks = [
        f"/dev/{one.name} ({', '.join(sysfs.users_of(one.name)) or 'no visible user'})" for one in found.namespaces
    ]
    return ", ".join([*disks, *(f"{one.name} at {one.address}:{one.port}" for one in found.controllers)])


CONNECTOR = NvmeConnector()
LEGS = NvmeConnector(fail_io_s=15)
"""For the replicas of a mirror: the others go on soon, so nothing waits long for one."""
