"""Cutting whoever has a device open off from the volume: what all verbs that do it share."""

from __future__ import annotations

import contextlib

from agent.host import sysfs
from agent.host.kernel import current
from agent.privsep import checks, devices, tool
from agent.privsep.errors import KernelRefused

_SYSTEM = frozenset(f"mounted on {place}" for place in ("/", "/boot", "/boot/efi", "/etc", "/usr", "/var"))
_WITHOUT_WAITING = ("--force", "--noflush", "--nolockfs")


def spare_system(name: str) -> None:
    """Refuse a device that this host itself runs from, whatever stands in between. VerbRefused."""
    kernel = current()
    for user in sysfs.users_of(name, kernel.sys, kernel.proc):
        if user in _SYSTEM or user.startswith("swap on "):
            raise checks.refused(f"this host itself needs {name}: {user}")
        if (holder := user.partition(" ")[0]).startswith(("dm-", "md")):
            spare_system(holder)


def cut_off(found: sysfs.MapperDevice, title: str) -> None:
    """All that is read and written from now on fails; the device goes with the last who has it open. KernelRefused.

    VerbRefused for one that this host runs from. It gets its other name, `title`, last: until then whoever was killed
    here finds it, and does it all again.
    """
    device = f"/dev/mapper/{found.title}"
    spare_system(found.name)
    if all(devices.answers(short) for short in found.below):
        with contextlib.suppress(KernelRefused):  # what can not be written now never will be
            devices.flush(found.name)
    _dmsetup(device, "wipe_table", *_WITHOUT_WAITING, "--", found.title)
    seen = sysfs.mapper_named(found.name)
    if seen is not None and seen.below:
        raise KernelRefused(action="cut off", device=device, reason=f"it still stands on {', '.join(seen.below)}")
    for arguments in (("remove", "--deferred", "--", found.title), ("rename", "--", found.title, title)):
        if sysfs.mapper_named(found.name) is None:
            return  # the last one has closed it meanwhile
        _dmsetup(device, *arguments)


def _dmsetup(device: str, *arguments: str) -> None:
    ended = tool.run("dmsetup", arguments, leashed=False)
    if ended.code and "No such device" not in ended.stderr:
        raise KernelRefused(action="cut off", device=device, reason=ended.stderr or f"exit code {ended.code}")
