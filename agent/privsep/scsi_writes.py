"""What verbs on SCSI disks share: one write to a file of the kernel, and the two that a disk takes."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from agent.host import scsi, sysfs
from agent.host.kernel import current
from agent.privsep.cutting import spare_system
from agent.privsep.devices import closed, flush
from agent.privsep.errors import DeviceHeld, KernelRefused

GONE = frozenset({errno.EINVAL, errno.ENOENT, errno.ENODEV, errno.ENXIO})


def write(path: Path, value: str, action: str, device: str, *, fine: Collection[int] = ()) -> bool:
    """False for an answer that is `fine`, too. KernelRefused, DeviceHeld."""
    try:
        current().write(path, value)
    except OSError as error:
        if error.errno in fine:
            return False
        if error.errno == errno.EBUSY:
            raise DeviceHeld(device=device, holders="the kernel says busy") from error
        raise KernelRefused(action=action, device=device, reason=str(error)) from error
    return True


def rescan(disks: Sequence[scsi.Disk], device: str) -> None:
    """Let the kernel read size and identity anew."""
    for disk in disks:
        write(_place(disk) / "rescan", "1", "rescan the disk of", device, fine=GONE)


def delete(disks: Sequence[scsi.Disk], device: str) -> bool:
    """Flush each, if it answers, and let the kernel drop it; False when there is none. DeviceHeld."""
    kernel = current()
    for disk in disks:
        users = sysfs.users_of(disk.name, kernel.sys, kernel.proc) if disk.name else ()
        if users:
            raise DeviceHeld(device=f"/dev/{disk.name}", holders=", ".join(users))
        if disk.name and disk.state == "running":
            closed(disk.name)
            flush(disk.name)
        write(_place(disk) / "delete", "1", "drop the disk of", device, fine=GONE)
    return bool(disks)


def cut(disks: Sequence[scsi.Disk], device: str) -> bool:
    """Let the kernel drop each although somebody uses it: what he reads and writes from now on fails. VerbRefused."""
    for disk in disks:
        if disk.name:
            spare_system(disk.name)
        if disk.name and disk.state == "running":
            with suppress(KernelRefused):  # what can not be written now never will be
                flush(disk.name)
        write(_place(disk) / "delete", "1", "drop the disk of", device, fine=GONE)
    return bool(disks)


def _place(disk: scsi.Disk) -> Path:
    return current().sys / "bus" / "scsi" / "devices" / disk.address
