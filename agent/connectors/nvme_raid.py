"""The connector of mirrored volumes: each replica reached by NVMe/TCP, one MD mirror over them.

A leg that knows less than another one is never read before it has caught up, and a mirror is not started from the
legs that happen to be there unless it is certain that no missing one knows more.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.connectors.base import DEADLINE, RemoteDevice
from agent.connectors.errors import (
    DetachIncomplete,
    DeviceMismatch,
    DeviceNotReady,
    NoPath,
    NotAttached,
    ReplicaMissing,
)
from agent.connectors.nvme import LEGS
from agent.connectors.probing import answering
from agent.host import md, nvme, sysfs, udev
from agent.privsep import md as verbs
from agent.privsep import nvme as nvme_verbs
from agent.privsep.client import call
from agent.privsep.waiting import HELD_S, patiently, until
from agent.wire.jobs import Connection

log = get_logger(__name__)
_DROP_S, _AGAIN_S = 60.0, 15.0
_BROKEN = (
    "all replicas were away at once, and the kernel refuses every write to it since: end what uses the volume, detach "
    "it, attach it again"
)


class NvmeRaidConnector:
    """See `agent.connectors.base.Connector`. `Connection.replicas` are the legs, its `target` the mirror's name."""

    protocol = "nvme-raid"

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def attach(
        self, connection: Connection, *, secret: bytes | None = None, deadline: float = DEADLINE
    ) -> RemoteDevice:
        end = asyncio.get_running_loop().time() + deadline
        async with self._lock(connection):
            known = _alive(_array(connection, _legs(connection)))
            try:
                legs, reasons = await _connected(connection, deadline)
                if not legs:
                    raise NoPath(target=connection.target, reason=" ".join(reasons))
                async with udev.subscribed() as events:
                    await self._started(connection, legs, reasons, end)
                    await self._settle(connection, legs)
                    return await self._ready(connection, events, end)
            except BrickyardError:
                # What was promised is not there: nothing of it may stay. What ran before may be in use.
                if not known:
                    with contextlib.suppress(BrickyardError):
                        await self._remove(connection, deadline)
                raise

    async def detach(self, connection: Connection, *, deadline: float = DEADLINE) -> bool:
        async with self._lock(connection):
            return await self._remove(connection, deadline)

    async def _remove(self, connection: Connection, deadline: float) -> bool:
        end = asyncio.get_running_loop().time() + deadline
        there, found = False, _array(connection, _legs(connection))
        if found is not None:
            there = await self._stop(connection, found.name, end)
        ended = await asyncio.gather(
            *(LEGS.detach(one, deadline=deadline) for one in connection.replicas), return_exceptions=True
        )
        for one in ended:
            if isinstance(one, BaseException):
                raise one
        return there or any(ended)

    async def _stop(self, connection: Connection, name: str, end: float) -> bool:
        try:
            # Where no path is left whoever looks at it, udev first of all, hangs until the kernel gives up.
            lost = not any(_live(one) for one in connection.replicas)
            held_s = 3.0 * LEGS.fail_io_s if lost else HELD_S
            there = await patiently(lambda: call(verbs.md_stop, name), end, held_s)
        except BrickyardError as error:
            users = ", ".join(sysfs.users_of(name)) or "no visible user"
            left = f"/dev/{name} ({users})"
            raise DetachIncomplete(attachment=connection.target, left=left, reason=str(error)) from error
        if (left_over := _array(connection, {})) is not None:
            reason = "the kernel still shows it"
            raise DetachIncomplete(attachment=connection.target, left=f"/dev/{left_over.name}", reason=reason)
        return there

    async def resize(self, connection: Connection, size: int) -> RemoteDevice:
        async with self._lock(connection):
            found = _array(connection, _legs(connection))
            if found is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            await asyncio.gather(*(LEGS.resize(one, size) for one in connection.replicas))
            if found.size < size and await call(verbs.md_grow, found.name) < size:
                grown = self.present(connection)
                reason = f"the mirror has {grown.size if grown else 0} bytes after it was grown, not {size}"
                raise DeviceMismatch(device=f"/dev/{found.name}", attachment=connection.target, reason=reason)
            device = self.present(connection)
            if device is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
            return device

    def present(self, connection: Connection, sys: Path = sysfs.SYS) -> RemoteDevice | None:
        legs = _legs(connection, sys)
        found = _array(connection, legs, sys)
        # A member that is gone may still be named; one that is here and none of ours makes it somebody else's array.
        if found is None or not found.active or not found.size or found.size < connection.size_bytes:
            return None
        here = [one.name for one in found.members if one.here]
        if not here or not set(here) <= set(legs):
            return None
        return RemoteDevice(found.name, found.size, found.diskseq, found.read_only, tuple(here))

    async def heal(self, connection: Connection) -> tuple[str, ...]:
        """Take back legs that answer again; what is wrong with the mirror now, and with each of its replicas."""
        async with self._lock(connection):
            legs = _legs(connection)
            found = _array(connection, legs)
            if found is None or not found.active:
                return ()  # it is not attached: the attachment's own state says so
            await asyncio.gather(*(_again(one) for one in connection.replicas if nvme.subsystem(one.target) is None))
            for name, leg in _legs(connection).items():
                if _live(leg) and _waits(found, name):
                    try:
                        if await call(verbs.md_add, found.name, name):
                            log.info("a replica is taken back", mirror=connection.target, leg=name)
                    except BrickyardError as error:
                        log.warning("a replica could not be taken back", mirror=connection.target, reason=str(error))
            now = _array(connection, _legs(connection))
            return _troubles(connection, now) if now is not None else ()

    async def _started(
        self, connection: Connection, legs: dict[str, Connection], reasons: list[str], end: float
    ) -> None:
        found = _array(connection, legs)
        if found is not None and not any(one.here for one in found.members):
            # Its legs went away for good, and came anew: what waited for them is lost.
            await self._stop(connection, found.name, end)
            found = None
        elif found is not None and found.broken:
            # Whoever has it open goes on reading; `heal` tells why he can not write.
            with contextlib.suppress(DetachIncomplete):
                await self._stop(connection, found.name, end)
                found = None
        if found is None or not found.active:
            await self._start(connection, legs, reasons)

    async def _start(self, connection: Connection, legs: dict[str, Connection], reasons: list[str]) -> None:
        """Assemble what the newest legs say, or make it over blank ones. ReplicaMissing, DeviceMismatch."""
        ident = connection.identity.removeprefix("uuid.")
        told = await call(verbs.md_examine, list(legs))
        for one in told:
            if one["uuid"] not in {"", ident}:
                reason = f"it is a leg of another mirror ({one['uuid']})"
                raise DeviceMismatch(device=f"/dev/{one['disk']}", attachment=connection.target, reason=reason)
        known = [one for one in told if one["uuid"]]
        missing = len(connection.replicas) - len(legs)
        if not known:
            if missing:
                raise ReplicaMissing(target=connection.target, count=missing, reason=" ".join(reasons))
            await call(verbs.md_create, connection.target, ident, list(legs))
            return
        best = fresh(known)
        if len(best) < max(one["active"] for one in best) and missing and not connection.degraded:
            raise ReplicaMissing(target=connection.target, count=missing, reason=" ".join(reasons))
        await call(verbs.md_assemble, connection.target, ident, [one["disk"] for one in best])

    async def _settle(self, connection: Connection, legs: dict[str, Connection]) -> None:
        """The mirror has the legs that are wanted and answer; those that were replaced leave it."""
        found = _array(connection, legs)
        if found is None:
            raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
        for name in legs:
            if _waits(found, name):
                await call(verbs.md_add, found.name, name)
        wanted = _legs(connection)
        for member in found.members:
            if member.name not in wanted and member.name.startswith("nvme"):
                await self._drop(found.name, member.name)
                for one in nvme.subsystems():
                    if member.name in {space.name for space in one.namespaces}:
                        await call(nvme_verbs.nvme_disconnect, one.target)

    async def _drop(self, array: str, leg: str) -> None:
        """What waits for a leg that is dead keeps it in the mirror for a moment."""
        end = asyncio.get_running_loop().time() + DEADLINE
        await patiently(lambda: call(verbs.md_drop, array, leg), end, _DROP_S)

    async def _ready(self, connection: Connection, events: udev.Events, end: float) -> RemoteDevice:
        device = await until(lambda: self.present(connection), events, end)
        if device is None:
            reason = "the mirror does not show its size, or is smaller than promised"
            raise DeviceNotReady(device=connection.target, seconds=round(DEADLINE), reason=reason)
        return device

    def _lock(self, connection: Connection) -> asyncio.Lock:
        found = self._locks.get(connection.target)
        if found is None:
            found = self._locks[connection.target] = asyncio.Lock()
        return found


async def _connected(connection: Connection, deadline: float) -> tuple[dict[str, Connection], list[str]]:
    """By device the replicas that answer, and why the others do not. A wrong device is no matter of answering."""
    ended = await asyncio.gather(
        *(LEGS.attach(one, deadline=deadline) for one in connection.replicas), return_exceptions=True
    )
    legs: dict[str, Connection] = {}
    reasons: list[str] = []
    for one, found in zip(connection.replicas, ended, strict=True):
        if isinstance(found, RemoteDevice) and _live(one):
            legs[found.name] = one
        elif isinstance(found, RemoteDevice):
            reasons.append(f"{one.target} has no path that works.")
        elif isinstance(found, DeviceMismatch) or not isinstance(found, BrickyardError):
            raise found
        else:
            reasons.append(str(found))
            log.warning("a replica does not answer", mirror=connection.target, reason=str(found))
    return legs, reasons


async def _again(leg: Connection) -> None:
    """Log in where the kernel has given up: since Linux 6.10 it does as soon as a target refuses it."""
    if not await answering(leg.portals, leg.transport):
        return
    try:
        await LEGS.attach(leg, deadline=_AGAIN_S)
    except BrickyardError as error:
        log.info("a replica does not take this host in", target=leg.target, reason=str(error))


def _legs(connection: Connection, sys: Path = sysfs.SYS) -> dict[str, Connection]:
    """By device the replicas that are here and say what was promised."""
    found = ((LEGS.present(one, sys), one) for one in connection.replicas)
    return {device.name: one for device, one in found if device is not None}


def _array(connection: Connection, legs: dict[str, Connection], sys: Path = sysfs.SYS) -> md.Array | None:
    """The mirror by its own id, also when no leg is left; where the kernel does not tell that, by its legs."""
    return md.known(connection.identity.removeprefix("uuid."), set(legs), sys)


def _alive(found: md.Array | None) -> bool:
    return found is not None and found.active and any(one.here for one in found.members)


def _live(connection: Connection) -> bool:
    found = nvme.subsystem(connection.target)
    return found is not None and found.live


def fresh(known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The legs that know all that any of them knows; MD itself takes one event for the same."""
    newest = max(one["events"] for one in known)
    return [one for one in known if one["events"] >= newest - 1]


def _waits(found: md.Array, name: str) -> bool:
    """Whether a leg has to be given to the mirror, or a mirror on hold has to begin with it."""
    return found.on_hold or found.member(name) is None or "faulty" in _state(found, name)


def _state(found: md.Array, name: str) -> frozenset[str]:
    member = found.member(name)
    return member.state if member is not None else frozenset()


def _troubles(connection: Connection, found: md.Array) -> tuple[str, ...]:
    told = [_BROKEN] if found.broken else []
    for one in connection.replicas:
        device = LEGS.present(one)
        member = found.member(device.name) if device is not None else None
        if member is None or "faulty" in member.state:
            told.append(f"{one.target} is not part of it")
        elif not member.good:
            told.append(f"{one.target} is catching up")
    return tuple(told)


CONNECTOR = NvmeRaidConnector()
