"""Running `lvm` as root on one volume group: only on the devices that hold it, with a deadline, its words understood.

What volumes hold is somebody else's: a guest's own volume group must never be seen by a command of the host, much
less be taken for the group that is meant. So every command gets the list of the devices that the group lies on, and
devices that show the content of volumes are never among those that are looked at.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.base.ids import is_id
from agent.host import lio, nvme, nvmet, scsi, sysfs
from agent.host import lvm as names
from agent.privsep import limits, tool
from agent.privsep.errors import (
    DeviceHeld,
    GroupAmbiguous,
    GroupFull,
    GroupMissing,
    LvmFailed,
    LvmUnavailable,
    VolumeMissing,
)

TIMEOUT_S = 60.0
_FULL = re.compile(r"insufficient free space|free space in thin pool|Insufficient suitable|not enough free", re.I)
_HELD = re.compile(r"in use|is used by another device|contains a filesystem in use", re.I)
_MISSING = re.compile(r"Failed to find logical volume|not found in volume group|One or more specified logical")
_NO_GROUP = re.compile(r"Volume group .* not found|Cannot process volume group|is missing PV|missing PVs", re.I)
_CONTENT = re.compile(rf"(part\d+-)?(LVM|{names.ATTACHED_UUID.rstrip('-')})-")
_NEVER = re.compile(r"(ram|zram|sr|fd)\d")
_known: dict[str, tuple[str, ...]] = {}
_finding = threading.Lock()


def lvm(group: str, command: str, arguments: Sequence[str], *, name: str = "") -> str:
    """Run one command on the group and return what it printed; `name` is for the error.

    LvmUnavailable, GroupMissing, GroupAmbiguous, VolumeMissing, GroupFull, DeviceHeld, LvmFailed, PrivilegeTimeout.
    """
    ended = _run([command, "--devices", ",".join(devices(group)), *arguments])
    if ended.code == 0:
        return ended.stdout
    reason = _last_words(ended.stderr) or f"exit code {ended.code}"
    if _HELD.search(ended.stderr):
        raise DeviceHeld(device=f"{group}/{name}", holders=reason)
    if _FULL.search(ended.stderr):
        raise GroupFull(group=group, reason=reason)
    if _NO_GROUP.search(ended.stderr):
        forget(group)
        raise GroupMissing(group=group, reason=reason)
    if _MISSING.search(ended.stderr):
        raise VolumeMissing(noun="logical volume", id=name, group=group, name=name)
    forget(group)
    raise LvmFailed(action=command, group=group, name=name, reason=reason)


def forget(group: str) -> None:
    """Look anew for the devices of the group at the next command."""
    with _finding:
        _known.pop(group, None)


def devices(group: str) -> tuple[str, ...]:
    """The devices that the group lies on. GroupMissing, GroupAmbiguous."""
    with _finding:
        if group not in _known:
            _known[group] = _find(group)
        return _known[group]


def _find(group: str) -> tuple[str, ...]:
    looked_at = limits.current().devices or candidates()
    if not looked_at:
        raise GroupMissing(group=group, reason="this host has no device that could hold it")
    options = ["--devices", ",".join(looked_at), "--reportformat", "json", "-o", "pv_name,vg_name,vg_uuid"]
    ended = _run(["pvs", *options])
    found: dict[str, list[str]] = {}
    for row in rows(ended.stdout, "pv"):
        if row["vg_name"] == group:
            found.setdefault(row["vg_uuid"], []).append(row["pv_name"])
    if not found:
        reason = _last_words(ended.stderr) or f"{len(looked_at)} devices were looked at"
        raise GroupMissing(group=group, reason=reason)
    if len(found) > 1:
        raise GroupAmbiguous(group=group, devices=" and ".join("+".join(some) for some in found.values()))
    return tuple(next(iter(found.values())))


def candidates() -> tuple[str, ...]:
    """Every device of this host that may hold a group of its own: none that shows the content of a volume."""
    found = []
    for disk in sysfs.disks():
        if not disk.size or _NEVER.match(disk.name) or is_content(disk):
            continue
        found += [f"/dev/{name}" for name in (disk.name, *disk.partitions)]
    return tuple(found)


def is_content(disk: sysfs.Disk, sys: Path = sysfs.SYS) -> bool:
    """Whether the bytes of the device belong to whoever owns a volume, or to a volume group in turn.

    So do those of another host's volume that is used here, which may hang as well while its host is away.
    """
    if disk.name.startswith("loop"):
        loop = sysfs.loop_device(int(disk.name.removeprefix("loop")))
        return loop is None or is_id(loop.file_name)
    if _CONTENT.match(disk.mapper_uuid) is not None or disk.mapper_title.startswith("brickyard-"):
        return True
    targets = (scsi.target_of(one, sys) or nvme.target_of(one, sys) or "" for one in sysfs.stands_on(disk.name, sys))
    return any(target.startswith((lio.PREFIX, nvmet.PREFIX)) for target in targets)


def rows(report: str, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind in a JSON report; LvmFailed when it is none."""
    try:
        parsed = json.loads(report or "{}")
        return [row for part in parsed.get("report", []) for row in part.get(kind, [])]
    except (ValueError, AttributeError) as error:
        raise LvmFailed(action="report", group="", name="", reason=f"its report can not be read ({error})") from error


def _run(arguments: Sequence[str]) -> tool.Ended:
    if tool.locate("lvm") is None:
        raise LvmUnavailable(reason="lvm is not installed")
    if not sysfs.has_mapper():
        raise LvmUnavailable(reason="the kernel has no device-mapper")
    # Killed in the wrong moment it would leave devices suspended, and who uses them hangs; it locks its group itself.
    return tool.run("lvm", arguments, timeout=TIMEOUT_S, leashed=False)


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("WARNING")]
    return " ".join((told or lines)[-2:])[:500]
