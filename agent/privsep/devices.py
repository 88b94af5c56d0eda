"""Which block devices the privileged side works on: those whose kernel state proves whose they are.

A loop device carries in the kernel what it was bound for (`brickyard-ATTACHMENT`, `byexport-VOLUME`); a device of
another host is a disk of an iSCSI session, a multipath map that stands on nothing else, a namespace over a fabric, or
the image of a volume in a Ceph cluster; a DASD, or a disk on a Fibre Channel fabric, is one whose device or array
root's limits name; the attachment of a logical volume has its id in the UUID that device-mapper keeps.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from agent.host import fc, fcp, nvme, rbd, scsi, sysfs
from agent.host.kernel import current
from agent.host.lvm import ATTACHED_UUID
from agent.host.openers import LOOKERS, openers
from agent.privsep import checks, loopctl
from agent.privsep.errors import DeviceForeign, DeviceHeld, KernelRefused

_DEVICE = re.compile(
    r"/dev/(loop\d{1,7}|sd[a-z]{1,7}|dm-\d{1,7}|nvme\d{1,5}n\d{1,5}|md\d{1,6}|dasd[a-z]{1,4}|rbd\d{1,7})"
)

_IMAGES = "byv-"


def name(device: object) -> str:
    """`loop0` of `/dev/loop0`; VerbRefused for what is no such path."""
    if not isinstance(device, str) or not (match := _DEVICE.fullmatch(device)):
        raise checks.refused(f"device {checks.shown(device)} is not one that can be worked on")
    return match[1]


def hold(device: object, diskseq: object, loop_name: str, *, remote_too: bool = False) -> tuple[str, int]:
    """(name, descriptor) of a device that can not become another one meanwhile. DeviceForeign, VerbRefused.

    A loop device must be bound for `loop_name`; with `remote_too`, a device of another host will do.
    """
    short, wanted = name(device), checks.sequence(diskseq)
    try:
        fd = os.open(f"/dev/{short}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceForeign(device=device, reason=str(error)) from error
    try:
        problem = _problem(short, fd, wanted, loop_name, remote_too)
        if problem:
            raise DeviceForeign(device=device, reason=problem)
    except BaseException:
        os.close(fd)
        raise
    return short, fd


def remote(short: str) -> bool:
    """Whether it is a disk over iSCSI or an allowed part of a fabric, a map of such, a namespace, a mirror, an allowed
    DASD, an image of a volume."""
    sys = current().sys
    if short.startswith("nvme"):
        return nvme.over_fabric(short)
    if short.startswith("md"):
        legs = [entry.name for entry in Path(sys / "block" / short / "slaves").glob("*")]
        return bool(legs) and all(nvme.over_fabric(each) for each in legs)
    if short.startswith("rbd"):
        image = rbd.disk(short, sys)
        return image is not None and image.image.startswith(_IMAGES)
    if short.startswith("dasd"):
        return checks.channel_allowed((sys / "block" / short / "device").resolve().name)
    if short.startswith("sd"):
        return _of_other_host(short)
    folder = sys / "block" / short
    below = [entry.name for entry in Path(folder / "slaves").glob("*")]
    uuid = sysfs.text(folder / "dm/uuid") or ""
    return uuid.startswith("mpath-") and bool(below) and all(_of_other_host(each) for each in below)


def flush(name: str) -> None:
    """Write out what waits for a device (`sda`, `dm-3`). KernelRefused."""
    try:
        fd = os.open(current().dev / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelRefused(action="flush", device=f"/dev/{name}", reason=error.strerror or str(error)) from error


def closed(name: str) -> None:
    """That no process has a disk open of which the kernel would not tell. DeviceHeld names those that are seen.

    Where nothing answers nobody has anything to lose; whoever hangs there is not waited for.
    """
    kernel = current()
    if answers(name) and (told := openers(name, kernel.sys, kernel.proc, but=LOOKERS)):
        raise DeviceHeld(device=f"/dev/{name}", holders=", ".join(told))


def answers(short: str) -> bool:
    """Whether I/O to a device has somewhere to go now: to wait for paths that are lost may be to wait for ever."""
    sys = current().sys
    folder = sys / "block" / short
    if not folder.exists():
        return (sys / "class/block" / short).exists()  # a partition, which no way from elsewhere leads to
    if short.startswith("sd"):
        return sysfs.text(folder / "device/state") in {None, "running"}
    if short.startswith("nvme"):
        ways = [one for one in nvme.subsystems(sys) if short in {space.name for space in one.namespaces}]
        return not ways or any(one.live for one in ways)
    below = [entry.name for entry in (folder / "slaves").glob("*")]
    gathers = short.startswith("md") or (sysfs.text(folder / "dm/uuid") or "").startswith("mpath-")
    return any(answers(each) for each in below) or not (below or gathers)


def _of_other_host(short: str) -> bool:
    """A SCSI disk over iSCSI, or over an FCP device or from a port of an array that root allowed."""
    if on_channel := fcp.adapter_of(short):
        return checks.channel_allowed(on_channel)
    return scsi.over_iscsi(short, current().sys) or checks.array_port_allowed(fc.array_port_of(short))


def _of_volume(short: str, loop_name: str) -> bool:
    """Whether it is the linear device of a logical volume that was made for that attachment or export."""
    found = sysfs.mapper_named(short) if short.startswith("dm-") else None
    ident = loop_name.removeprefix(checks.LOOP_NAME_PREFIX).removeprefix(checks.EXPORT_NAME_PREFIX)
    return found is not None and found.uuid == ATTACHED_UUID + ident


def _problem(short: str, fd: int, diskseq: int | None, loop_name: str, remote_too: bool) -> str:
    if diskseq not in {None, loopctl.diskseq(fd)}:
        return "another device has taken its place"
    if short.startswith("loop"):
        status = loopctl.status(fd)
        return "" if status is not None and status.name == loop_name else "it is bound to something else, or to nothing"
    if _of_volume(short, loop_name):
        return ""
    if not remote_too:
        return "it is not a device of this host's volumes"
    if remote(short):
        return ""
    return "it is no disk over iSCSI or an allowed part of a fabric, no map of such, namespace, image or allowed DASD"
