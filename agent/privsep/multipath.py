"""Verbs on maps of the multipath daemon. Only maps that stand on disks of other hosts or arrays can be reached."""

from __future__ import annotations

import re

from agent.host import scsi, sysfs
from agent.host.kernel import current
from agent.privsep import checks, cutting, devices, noderecord, tool
from agent.privsep.contexts import net, privileged
from agent.privsep.errors import DeviceHeld, KernelRefused

_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TOOL_S = 30.0


@privileged(net)
def multipath_add(device: str) -> None:
    """Tell the multipath daemon of a new path; the caller sees in sysfs what came of it."""
    short = _path(device)
    tool.run("multipath", ["-a", f"/dev/{short}"], timeout=_TOOL_S)
    tool.run("multipathd", ["add", "path", short], timeout=_TOOL_S)


@privileged(net)
def multipath_drop(device: str) -> None:
    """Take one path out of whatever map it is in; a map that loses its last path goes with it, unless it is in use."""
    short, kernel = _path(device), current()
    if any(holder.startswith("dm-") for holder in sysfs.users_of(short, kernel.sys, kernel.proc)):
        tool.run("multipathd", ["del", "path", short], timeout=_TOOL_S)


@privileged(net)
def multipath_remove(identity: str) -> bool:
    """Flush and remove the map of an identity; False when there is none. DeviceHeld, SessionForeign."""
    kernel = current()
    found = scsi.multipath_map(_identity(identity), kernel.sys)
    if found is None:
        return False
    device = f"/dev/mapper/{found.title}"
    users = sysfs.users_of(found.name, kernel.sys, kernel.proc)
    if users:
        raise DeviceHeld(device=device, holders=", ".join(users))
    _ours(found)
    if any(scsi.path_running(below, kernel.sys) for below in found.below):
        devices.flush(found.name)
    else:  # no path answers: what waits in the queue of the map would be waited for without end
        tool.run("multipathd", ["disablequeueing", "map", found.title], timeout=_TOOL_S)
    ended = tool.run("multipath", ["-f", found.title], timeout=_TOOL_S)
    if scsi.multipath_map(identity, kernel.sys) is not None:
        raise KernelRefused(action="remove", device=device, reason=_said(ended))
    return True


@privileged(net)
def multipath_cut(identity: str) -> bool:
    """Cut whoever has the map of an identity open off from its paths; False when there is none. KernelRefused,
    SessionForeign.

    The map goes with the last who has it open, and bears another name until then.
    """
    found = scsi.multipath_map(_identity(identity), current().sys)
    if found is None:
        return False
    _ours(found)
    tool.run("multipathd", ["disablequeueing", "map", found.title], timeout=_TOOL_S)
    cutting.cut_off(found, f"{sysfs.CUT_PREFIX}{identity}")
    return True


@privileged(net)
def multipath_resize(identity: str) -> int:
    """Let the map of an identity follow its grown paths; returns bytes. KernelRefused."""
    sys = current().sys
    found = scsi.multipath_map(_identity(identity), sys)
    if found is None or not devices.remote(found.name):
        raise KernelRefused(action="resize", device=identity, reason="it has no map of disks that may be used")
    ended = tool.run("multipathd", ["resize", "map", found.title], timeout=_TOOL_S)
    grown = scsi.multipath_map(identity, sys)
    if ended.code or grown is None:
        raise KernelRefused(action="resize", device=f"/dev/mapper/{found.title}", reason=_said(ended))
    return grown.size


def _ours(found: sysfs.MapperDevice) -> None:
    """VerbRefused, SessionForeign. Without a path (all disks gone, or cut off) it stands on nothing of anybody."""
    if found.below and not devices.remote(found.name):
        raise checks.refused(f"map {found.title} stands on other disks than those that may be used")
    for below in found.below:
        noderecord.own(scsi.session_of(below, current().sys))


def _path(device: object) -> str:
    short = devices.name(device)
    if not short.startswith("sd") or not devices.remote(short):
        raise checks.refused(f"{short} is no disk of an iSCSI session or of an allowed part of a fabric")
    return short


def _identity(value: object) -> str:
    if not isinstance(value, str) or not _IDENTITY.fullmatch(value):
        raise checks.refused(f"identity {checks.shown(value)} is not a plain name")
    return value


def _said(ended: tool.Ended) -> str:
    return ended.stderr.splitlines()[-1] if ended.stderr else f"exit code {ended.code}"
