"""Verbs on mirrors (MD RAID1) whose legs are namespaces over a fabric; no other array and no other disk is touched.

A mirror is made over blank legs alone, and never over anything that carries a superblock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from agent.host import md, nvme, sysfs
from agent.privsep import checks, scsi_writes, tool
from agent.privsep.contexts import net, privileged
from agent.privsep.errors import DeviceForeign, DeviceHeld, KernelRefused

_DISK = re.compile(r"nvme\d{1,5}n\d{1,5}")
_MD = re.compile(r"md\d{1,6}")
_BLANK = 4 << 20  # superblock, bitmap and what any file system or header begins with
_MOST = 8
_TOOL_S = 60.0


@privileged(net)
def md_examine(legs: Sequence[str]) -> list[dict[str, Any]]:
    """By leg {disk, uuid, events, active, legs, blank}; uuid empty: it belongs to no mirror. KernelRefused."""
    return [_examined(one) for one in _legs(legs)]


@privileged(net)
def md_create(name: str, uuid: str, legs: Sequence[str]) -> str:
    """Make a mirror over blank legs; the kernel's name of it. DeviceForeign when a leg is not blank."""
    title, ident, disks = _title(name), checks.uuid(uuid, "array"), _legs(legs)
    for one in disks:
        if not _examined(one)["blank"]:
            raise DeviceForeign(device=f"/dev/{one}", reason="it is not blank, and a mirror is made over nothing else")
    _mdadm(
        "make", title, "--create", f"/dev/md/{title}", "--run", "--level=1", f"--raid-devices={len(disks)}",
        "--metadata=1.2", "--bitmap=internal", "--homehost=any", f"--name={title}", f"--uuid={ident}", "--failfast",
        "--assume-clean", *(f"/dev/{one}" for one in disks),
    )  # fmt: skip
    return _made(disks)


@privileged(net)
def md_assemble(name: str, uuid: str, legs: Sequence[str]) -> str:
    """Start a mirror from exactly these members of it; the kernel's name. DeviceForeign, KernelRefused."""
    title, ident, disks = _title(name), checks.uuid(uuid, "array"), _legs(legs)
    for one in disks:
        if _examined(one)["uuid"] != ident:
            raise DeviceForeign(device=f"/dev/{one}", reason=f"it is no leg of {ident}")
    half = md.over(set(disks))
    if half is not None and not half.active:
        _mdadm("stop", half.name, "--stop", f"/dev/{half.name}")  # what udev's rules had begun
    if half is None or not half.active:
        _mdadm(
            "assemble", title, "--assemble", f"/dev/md/{title}", "--run", "--config=/dev/null",
            *(f"/dev/{one}" for one in disks),
        )  # fmt: skip
    made = _made(disks)
    _take_writes(made)
    return made


@privileged(net)
def md_stop(array: str) -> bool:
    """Flush and end a mirror; False when it is gone. DeviceHeld (nothing was changed), KernelRefused.

    Where no leg answers, or the mirror is broken, nothing can be flushed: what was not written is lost.
    """
    found = _array(array)
    if found is None:
        return False
    if users := sysfs.users_of(found.name):
        raise DeviceHeld(device=f"/dev/{found.name}", holders=", ".join(users))
    if found.active and not found.broken and _answers(found):
        try:
            fd = os.open(f"/dev/{found.name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            now = _array(array)
            if now is not None and not now.broken and _answers(now):
                reason = error.strerror or str(error)
                raise KernelRefused(action="flush", device=f"/dev/{found.name}", reason=reason) from error
    _mdadm("stop", found.name, "--stop", f"/dev/{found.name}")
    return True


@privileged(net)
def md_add(array: str, leg: str) -> bool:
    """Give a mirror a leg (again): only what it missed is copied where its bitmap knows; False when it has it.

    Copying begins at once, whoever gave it the leg: also that of a mirror on hold.
    """
    found, (disk,) = _array(array), _legs([leg])
    if found is None:
        raise KernelRefused(action="add a leg to", device=str(array), reason="there is no such mirror")
    member = found.member(disk)
    if member is not None and "faulty" not in member.state:
        _take_writes(found.name)
        return False
    if member is not None:
        _mdadm("remove a leg from", found.name, "--manage", f"/dev/{found.name}", "--remove", f"/dev/{disk}")
    again = tool.run("mdadm", ["--manage", f"/dev/{found.name}", "--re-add", f"/dev/{disk}"], timeout=_TOOL_S)
    if again.code:
        if not _examined(disk)["blank"] and _examined(disk)["uuid"] not in _uuids(found):
            raise DeviceForeign(device=f"/dev/{disk}", reason="it is neither blank nor a leg of this mirror")
        _mdadm("add a leg to", found.name, "--manage", f"/dev/{found.name}", "--add", f"/dev/{disk}")
    _take_writes(found.name)
    return True


@privileged(net)
def md_drop(array: str, leg: str) -> bool:
    """Take a leg out of a mirror; False when it is not in it. DeviceHeld: it is the last good one."""
    found = _array(array)
    if not isinstance(leg, str) or not _DISK.fullmatch(leg):
        raise checks.refused(f"leg {checks.shown(leg)} is no namespace")
    member = found.member(leg) if found is not None else None
    if found is None or member is None:
        return False
    if member.good and not any(one.good for one in found.members if one is not member):
        raise DeviceHeld(device=f"/dev/{leg}", holders=f"/dev/{found.name}, whose last good leg it is")
    # Told to the kernel itself: mdadm wants the leg's node in /dev, which may be gone while the mirror still has it.
    state = sysfs.SYS / "block" / found.name / "md" / f"dev-{leg}" / "state"
    if "faulty" not in member.state:
        scsi_writes.write(state, "faulty", "fail a leg of", found.name, fine=scsi_writes.GONE)
    scsi_writes.write(state, "remove", "remove a leg from", found.name, fine=scsi_writes.GONE)
    return True


@privileged(net)
def md_grow(array: str) -> int:
    """Let a mirror follow its legs to the size that all of them have; bytes. KernelRefused."""
    found = _array(array)
    if found is None:
        raise KernelRefused(action="grow", device=str(array), reason="there is no such mirror")
    _mdadm("grow", found.name, "--grow", f"/dev/{found.name}", "--size=max", "--assume-clean")
    now = _array(array)
    return now.size if now is not None else 0


def _examined(disk: str) -> dict[str, Any]:
    try:
        fd = os.open(f"/dev/{disk}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            start = os.pread(fd, _BLANK, 0)
        finally:
            os.close(fd)
    except OSError as error:
        reason = error.strerror or str(error)
        raise KernelRefused(action="read", device=f"/dev/{disk}", reason=reason) from error
    found = md.superblock(start[md.SUPERBLOCK_AT : md.SUPERBLOCK_AT + md.SUPERBLOCK_BYTES])
    told = (found.uuid, found.events, found.active, found.legs) if found is not None else ("", 0, 0, 0)
    blank = not start.strip(b"\0")
    return {"disk": disk, "blank": blank, **dict(zip(("uuid", "events", "active", "legs"), told, strict=True))}


def _answers(found: md.Array) -> bool:
    """Whether a leg that has all data can be written now."""
    live = {space.name for one in nvme.subsystems() if one.live for space in one.namespaces}
    return any(one.good and one.name in live for one in found.members)


def _take_writes(name: str) -> None:
    """Of one that is read-only or on hold; whoever writes to it meanwhile does the same."""
    found = _array(name)
    if found is None or not (found.read_only or found.on_hold):
        return
    try:
        _mdadm("open", name, "--readwrite", f"/dev/{name}")
    except KernelRefused:
        now = _array(name)
        if now is not None and (now.read_only or now.on_hold):
            raise


def _uuids(found: md.Array) -> set[str]:
    return {_examined(one.name)["uuid"] for one in found.members if one.good and one.here}


def _made(disks: Sequence[str]) -> str:
    found = md.over(set(disks))
    if found is None or not found.active:
        raise KernelRefused(action="start", device="the mirror", reason="the kernel shows none over its legs")
    return found.name


def _array(name: object) -> md.Array | None:
    if not isinstance(name, str) or not _MD.fullmatch(name):
        raise checks.refused(f"array {checks.shown(name)} is not one of MD")
    found = next((one for one in md.arrays() if one.name == name), None)
    if found is not None and not all(_fabric(one) for one in found.members):
        raise checks.refused(f"array {name} stands on other than namespaces over a fabric")
    return found


def _fabric(member: md.Member) -> bool:
    """One that has gone can not be asked any more, and holds nothing of this host's own."""
    if member.here and not nvme.is_going(member.name):
        return nvme.over_fabric(member.name)
    return bool(_DISK.fullmatch(member.name))


def _legs(value: object) -> list[str]:
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= _MOST or len(set(map(str, value))) != len(value):
        raise checks.refused("the list of legs has another form, or is too long")
    for one in value:
        if not isinstance(one, str) or not _DISK.fullmatch(one) or not nvme.over_fabric(one):
            raise checks.refused(f"leg {checks.shown(one)} is no namespace over a fabric")
        if users := [user for user in sysfs.users_of(one) if not user.startswith("md")]:
            raise DeviceHeld(device=f"/dev/{one}", holders=", ".join(users))
    return list(value)


def _title(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][A-Za-z0-9_-]{0,31}", value):
        raise checks.refused(f"name {checks.shown(value)} is not the plain name of a mirror")
    return value


def _mdadm(action: str, device: str, *arguments: str) -> None:
    ended = tool.run("mdadm", arguments, timeout=_TOOL_S)
    if ended.code:
        reason = ended.stderr.splitlines()[-1] if ended.stderr else f"exit code {ended.code}"
        raise KernelRefused(action=action, device=device, reason=reason)
