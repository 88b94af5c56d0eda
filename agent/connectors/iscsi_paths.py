"""One path of an iSCSI connection: a session at one portal, and the disk at its LUN, proven by what it says it is."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.connectors.errors import DeviceMismatch, DeviceNotReady, NoPath
from agent.connectors.probing import place
from agent.connectors.scsi_disks import claim
from agent.host import scsi, sysfs, udev
from agent.privsep import iscsi as verbs
from agent.privsep.client import call
from agent.privsep.errors import InterfaceUnknown, LoginFailed
from agent.privsep.multipath import multipath_drop
from agent.privsep.waiting import Finished, until
from agent.wire.jobs import Connection, Portal

log = get_logger(__name__)


def session_at(connection: Connection, portal: Portal, sys: Path = sysfs.SYS) -> scsi.Session | None:
    """The session of this target at one portal, whatever its state."""
    return scsi.session_at(connection.target, place(portal), sys)


@dataclass(frozen=True, slots=True)
class How:
    """How to log in. `interface` is one of open-iscsi's, for connections by TCP."""

    secret: bytes | None = field(default=None, repr=False)
    multipath: bool = False
    interface: str = "default"


async def reach(connection: Connection, portal: Portal, how: How, end: float) -> scsi.Disk:
    """Log in at the portal, look at exactly the one LUN, wait until the device is ready, prove it.

    `end` is a time of the loop's clock. LoginFailed, LoginRefused, DeviceNotReady, DeviceMismatch.
    """
    async with udev.subscribed() as events:
        return await _joined(connection, portal, await _log_in(connection, portal, how), events, end)


async def _log_in(connection: Connection, portal: Portal, how: How) -> bool:
    """By the interface that is wanted; where that does not work by plain TCP, which is told."""
    wanted = "iser" if connection.transport == "iser" else how.interface

    async def by(interface: str) -> bool:
        return await call(
            verbs.iscsi_login,
            connection.target,
            portal.address,
            portal.port,
            connection.lun or 0,
            username=connection.username,
            secret=how.secret,
            multipath=how.multipath,
            interface=interface,
        )

    try:
        return await by(wanted)
    except (InterfaceUnknown, LoginFailed) as error:
        if wanted in {"default", "iser"}:
            raise
        log.warning("an interface of open-iscsi does not work; plain TCP is tried", interface=wanted, reason=str(error))
        return await by("default")


async def rejoin(connection: Connection, portal: Portal, end: float) -> scsi.Disk:
    """The same by the record that was written at the attach, whose secret nobody else has kept."""
    async with udev.subscribed() as events:
        lun = connection.lun or 0
        looked = await call(verbs.iscsi_login_again, connection.target, portal.address, portal.port, lun)
        return await _joined(connection, portal, looked, events, end)


async def _joined(connection: Connection, portal: Portal, looked: bool, events: udev.Events, end: float) -> scsi.Disk:
    session = session_at(connection, portal)
    if session is None:
        raise NoPath(target=connection.target, reason="the session ended at once")
    lun = connection.lun or 0
    address = f"{session.host}:0:{session.target_id}:{lun}"
    if not looked:
        if (known := await _known(connection, address)) is not None:
            return known
        await call(verbs.scsi_scan, session.host, 0, session.target_id, lun)
    return await _appear(connection, address, events, end)


async def _known(connection: Connection, address: str) -> scsi.Disk | None:
    """The disk that the kernel remembers at an address, when it is the promised one; else it is gone from there."""
    known = scsi.disk(address)
    if not known.name:
        return None
    # What the kernel remembers of an address may be of a volume that was there before.
    await call(verbs.scsi_rescan, address)
    known = scsi.disk(address)
    if not claim(connection, known):
        return known
    await call(multipath_drop, f"/dev/{known.name}")
    if users := sysfs.users_of(known.name):
        reason = f"another device ({known.identity}) stands at its address and is in use by {', '.join(users)}"
        raise DeviceMismatch(device=f"/dev/{known.name}", attachment=connection.target, reason=reason)
    await call(verbs.scsi_delete, address, False)
    return None


async def _appear(connection: Connection, address: str, events: udev.Events, end: float) -> scsi.Disk:
    finished = Finished(events)

    def ready() -> scsi.Disk | None:
        disk = scsi.disk(address)
        return disk if disk.name and disk.size and finished.holds(disk.name, disk.diskseq) else None

    disk = await until(ready, events, end, finished.heard, lambda event: f"/{address}/" in event.path)
    if disk is None:
        seen = scsi.disk(address)
        what = "udev sent no event of it" if seen.name else "the kernel found no disk there"
        device = f"LUN {connection.lun or 0} of {connection.target}"
        raise DeviceNotReady(device=device, seconds=round(_waited(end)), reason=what)
    if wrong := claim(connection, disk):
        await drop(disk)
        raise DeviceMismatch(device=f"/dev/{disk.name}", attachment=connection.target, reason=wrong)
    return disk


async def drop(disk: scsi.Disk) -> None:
    """Cut a disk off that is not what was promised; the multipath daemon may have taken it already."""
    with contextlib.suppress(BrickyardError):
        await call(multipath_drop, f"/dev/{disk.name}")
        await call(verbs.scsi_delete, disk.address, False)


def _waited(end: float) -> float:
    return max(1.0, end - asyncio.get_running_loop().time())
