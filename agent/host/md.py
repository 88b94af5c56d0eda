"""Arrays of the kernel's MD driver as sysfs tells them, and what a member's superblock says. Pure reads."""

from __future__ import annotations

import re
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

from agent.host import sysfs

SUPERBLOCK_AT, SUPERBLOCK_BYTES = 4096, 4096
_MAGIC = 0xA92B4EFC
_NAME = re.compile(r"md\d+")
_RAID1 = 1
_FIXED = struct.Struct("<IIII16s32sQiiQII")
_EVENTS_AT, _MOST_AT, _ROLES_AT = 200, 220, 256


@dataclass(frozen=True, slots=True)
class Member:
    """One leg of an array: `name` of its device, `state` as the kernel has it (`in_sync`, `faulty`, `spare`, …).

    `here`: the device still is; an array goes on naming one that has gone.
    """

    name: str
    state: frozenset[str]
    here: bool = True

    @property
    def good(self) -> bool:
        return "in_sync" in self.state and "faulty" not in self.state


@dataclass(frozen=True, slots=True)
class Array:
    """`active`: it takes I/O. `wanted`: legs that a whole one has. `action`: idle, resync, recover, … Bytes.

    `uuid` is that of its superblock; empty where the kernel does not tell it. `broken`: all its legs were away at once
    while it was written to, and the kernel refuses every write to it until it was ended and started anew. `on_hold`:
    nobody wrote to it since udev's rules started it, and no leg is brought up to date before somebody does.
    """

    name: str
    active: bool
    wanted: int
    action: str
    size: int
    diskseq: int | None
    read_only: bool
    members: tuple[Member, ...]
    uuid: str = ""
    broken: bool = False
    on_hold: bool = False

    def member(self, name: str) -> Member | None:
        return next((one for one in self.members if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a member knows. `events` rises with every change; `active`: how many legs it believes to be good."""

    uuid: str
    level: int
    legs: int
    events: int
    active: int


def arrays(sys: Path = sysfs.SYS) -> tuple[Array, ...]:
    """All of them, assembled or half assembled, by name."""
    try:
        names = sorted(entry.name for entry in (sys / "block").iterdir() if _NAME.fullmatch(entry.name))
    except OSError:
        return ()
    return tuple(_array(name, sys) for name in names if (sys / "block" / name / "md").is_dir())


def over(disks: frozenset[str] | set[str], sys: Path = sysfs.SYS) -> Array | None:
    """The array that stands on any of these disks."""
    return next((one for one in arrays(sys) if any(each.name in disks for each in one.members)), None)


def known(uuid: str, disks: frozenset[str] | set[str], sys: Path = sysfs.SYS) -> Array | None:
    """The array of that id, also when none of its disks is left; else the one that stands on any of these.

    What the kernel shows for a moment of one that was stopped has no members.
    """
    there = (one for one in arrays(sys) if one.active or one.members)
    return next((one for one in there if uuid and one.uuid == uuid), None) or over(disks, sys)


def superblock(data: bytes) -> Superblock | None:
    """Read from the bytes at `SUPERBLOCK_AT` of a member; None for anything that is no RAID member of version 1.2."""
    if len(data) < _ROLES_AT:
        return None
    magic, major, _, _, ident, _, _, level, _, _, _, legs = _FIXED.unpack_from(data)
    if magic != _MAGIC or major != 1:
        return None
    (events,) = struct.unpack_from("<Q", data, _EVENTS_AT)
    (most,) = struct.unpack_from("<I", data, _MOST_AT)
    count = min(most, (len(data) - _ROLES_AT) // 2)
    roles = struct.unpack_from(f"<{count}H", data, _ROLES_AT)
    return Superblock(str(uuid.UUID(bytes=ident)), level, legs, events, sum(role < legs for role in roles))


def is_mirror(found: Superblock) -> bool:
    return found.level == _RAID1


def _array(name: str, sys: Path) -> Array:
    folder = sys / "block" / name
    size, wanted = (sysfs.text(folder / each) or "" for each in ("size", "md/raid_disks"))
    entries = sorted((folder / "md").glob("dev-*"))
    state = sysfs.text(folder / "md/array_state") or "clear"
    return Array(
        name=name,
        active=state not in {"clear", "inactive"},
        wanted=int(wanted) if wanted.isdigit() else 0,
        action=sysfs.text(folder / "md/sync_action") or "",
        size=int(size) * 512 if size.isdigit() else 0,
        diskseq=sysfs.diskseq(name, sys),
        read_only=sysfs.is_read_only(name, sys),
        members=tuple(_member(each, sys) for each in entries),
        uuid=(sysfs.text(folder / "md/uuid") or "").strip(),
        broken=state == "broken",
        on_hold=state == "read-auto",
    )


def _member(place: Path, sys: Path) -> Member:
    name = place.name.removeprefix("dev-")
    told = frozenset((sysfs.text(place / "state") or "").split(","))
    return Member(name, told, here=(sys / "class/block" / name).exists() or (sys / "block" / name).exists())
