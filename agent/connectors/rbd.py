"""The connector of images in a Ceph cluster: the kernel's own client makes a disk of each.

Nothing is waited for but events. The monitors find the paths, and the kernel goes on trying when all are lost; the key
is this host's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from weakref import WeakValueDictionary

from agent.base.errors import BrickyardError
from agent.connectors.base import DEADLINE, RemoteDevice
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, DeviceNotReady, KeyringUnusable, NotAttached
from agent.host import cephx, rbd, sysfs, udev
from agent.privsep import krbd as verbs
from agent.privsep.client import call
from agent.privsep.errors import PrivilegeUnavailable
from agent.privsep.waiting import HELD_S, Finished, patiently, until
from agent.wire.jobs import CephImage, Connection

_OTHERS = 0o007


class RbdConnector:
    """See `agent.connectors.base.Connector`. `fail_io_s`: how long I/O waits for a cluster that does not answer."""

    protocol = "rbd"

    def __init__(self, fail_io_s: int = 300) -> None:
        self.fail_io_s = fail_io_s
        self.keyring: Path | None = None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def ready(self) -> bool:
        """Whether this host can map images at all. Blocking."""
        return self.keyring is not None and rbd.available()

    async def attach(
        self, connection: Connection, *, secret: bytes | None = None, deadline: float = DEADLINE
    ) -> RemoteDevice:
        end = asyncio.get_running_loop().time() + deadline
        image = _image(connection)
        async with self._lock(connection):
            who = await asyncio.to_thread(self._who)
            known = _mapped(connection)
            try:
                async with udev.subscribed() as events:
                    finished = Finished(events, ((known.name, known.diskseq),) if known is not None else ())
                    monitors = [(one.address, one.port) for one in connection.portals]
                    _, fsid = await call(
                        verbs.rbd_map, image.pool, connection.target, who, monitors, messenger=image.messenger,
                        read_only=image.read_only, fail_io_s=self.fail_io_s,
                    )  # fmt: skip
                    return await self._appear(connection, fsid, finished, events, end)
            except BrickyardError:
                if known is None:
                    # What was promised is not there: nothing of it may stay.
                    with contextlib.suppress(BrickyardError):
                        await _unmapped(connection, asyncio.get_running_loop().time() + HELD_S)
                raise

    async def detach(self, connection: Connection, *, deadline: float = DEADLINE) -> bool:
        return await self._end(connection, deadline, force=False)

    async def cut(self, connection: Connection) -> bool:
        """See `agent.connectors.base.Cutting`."""
        return await self._end(connection, DEADLINE, force=True)

    async def resize(self, connection: Connection, size: int) -> RemoteDevice:
        image = _image(connection)
        async with self._lock(connection):
            if self.present(connection) is None:
                raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)

            def grown() -> RemoteDevice | None:
                now = self.present(connection)
                return now if now is not None and now.size >= size else None

            async with udev.subscribed() as events:
                await call(verbs.rbd_refresh, image.pool, connection.target, read_only=image.read_only)
                device = await until(grown, events, asyncio.get_running_loop().time() + DEADLINE)
            if device is None:
                now = self.present(connection)
                reason = f"it has {now.size if now else 0} bytes after the cluster was asked, not {size}"
                raise DeviceMismatch(device=connection.target, attachment=connection.target, reason=reason)
            return device

    def present(self, connection: Connection, sys: Path = sysfs.SYS) -> RemoteDevice | None:
        found = _mapped(connection, sys)
        return None if found is None or _claim(connection, found) else _device(found)

    async def _appear(
        self, connection: Connection, fsid: str, finished: Finished, events: udev.Events, end: float
    ) -> RemoteDevice:
        """Wait until udev is done with the disk, and prove it."""

        def shown() -> rbd.Mapped | None:
            now = _mapped(connection)
            return now if now is not None and finished.holds(now.name, now.diskseq) else None

        found = await until(shown, events, end, finished.heard)
        if found is None:
            reason = "udev sent no event of it"
            raise DeviceNotReady(device=f"the disk of {connection.target}", seconds=round(DEADLINE), reason=reason)
        promised = _image(connection).fsid
        wrong = _claim(connection, found) or (f"its cluster is {fsid}, not {promised}" if fsid != promised else "")
        if wrong:
            raise DeviceMismatch(device=f"/dev/{found.name}", attachment=connection.target, reason=wrong)
        return _device(found)

    async def _end(self, connection: Connection, deadline: float, *, force: bool) -> bool:
        if not rbd.available():
            return False  # what is not loaded shows no disk
        async with self._lock(connection):
            try:
                return await _unmapped(connection, asyncio.get_running_loop().time() + deadline, force=force)
            except BrickyardError as error:
                left = _mapped(connection)
                if left is None and isinstance(error, PrivilegeUnavailable):
                    return False  # who may not call the verb has no mapping under way
                users = ", ".join(sysfs.users_of(left.name)) if left is not None else ""
                told = f"/dev/{left.name} ({users or 'no visible user'})" if left is not None else "nothing"
                raise DetachIncomplete(attachment=connection.target, left=told, reason=str(error)) from error

    def _who(self) -> tuple[str, bytes]:
        """The first user of the keyring, and its key. KeyringUnusable."""
        if self.keyring is None:
            raise KeyringUnusable(keyring="[connectors] ceph_keyring", reason="there is no such file")
        try:
            if self.keyring.stat().st_mode & _OTHERS:
                raise KeyringUnusable(keyring=str(self.keyring), reason="others can read it")
            users = cephx.keys(self.keyring.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise KeyringUnusable(keyring=str(self.keyring), reason=str(error)) from error
        if not users:
            raise KeyringUnusable(keyring=str(self.keyring), reason="it holds no key of a user")
        return next(iter(users.items()))

    def _lock(self, connection: Connection) -> asyncio.Lock:
        found = self._locks.get(connection.target)
        if found is None:
            found = self._locks[connection.target] = asyncio.Lock()
        return found


async def _unmapped(connection: Connection, end: float, *, force: bool = False) -> bool:
    pool, read_only = _image(connection).pool, _image(connection).read_only
    return await patiently(
        lambda: call(verbs.rbd_unmap, pool, connection.target, read_only=read_only, force=force), end
    )


def _image(connection: Connection) -> CephImage:
    assert connection.ceph is not None
    return connection.ceph


def _mapped(connection: Connection, sys: Path = sysfs.SYS) -> rbd.Mapped | None:
    image = _image(connection)
    return rbd.image(image.pool, connection.target, read_only=image.read_only, sys=sys)


def _claim(connection: Connection, found: rbd.Mapped) -> str:
    """What is wrong with what a disk says of itself; empty when it is what was promised."""
    if found.identity != connection.identity:
        return f"it says it is {found.identity}, promised is {connection.identity}"
    if found.size < connection.size_bytes:
        return f"it has {found.size} bytes, promised are {connection.size_bytes}"
    return ""


def _device(found: rbd.Mapped) -> RemoteDevice:
    return RemoteDevice(found.name, found.size, found.diskseq, found.read_only, (found.name,))


CONNECTOR = RbdConnector()
