"""Block devices as the kernel tells them in sysfs and proc. Pure reads; both roots can be given for tests."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SYS = Path("/sys")
PROC = Path("/proc")
_LOOP = re.compile(r"loop(\d+)")
NOWHERE = 1 << 62
"""Where the bytes begin of a loop device that was cut off from its file: behind every file's end."""
CUT_PREFIX = "brickcut-"
"""How the name begins of a device that was cut off from its volume: it waits only for who has it open."""
_PIECE = 1 << 16
_SECTOR = 512  # sysfs counts in these whatever the device's own sector size


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """A bound loop device; size in bytes, `diskseq` None before Linux 5.15."""

    number: int
    name: str
    backing_file: str
    size: int
    diskseq: int | None
    read_only: bool

    @property
    def file_name(self) -> str:
        """The file's own name. The folders above it are told as the mounts of the binding process had them: once
        that process and its mount namespace are gone (a restarted unit), they lead nowhere."""
        return PurePosixPath(self.backing_file.removesuffix(" (deleted)")).name


@dataclass(frozen=True, slots=True)
class MapperDevice:
    """A device-mapper device: `name` as `dm-0`, `title` as in /dev/mapper, `below` the devices it stands on."""

    name: str
    title: str
    uuid: str
    size: int
    below: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """A whole block device; size in bytes. UUID and title are empty where it is not device-mapper's."""

    name: str
    size: int
    mapper_uuid: str
    mapper_title: str
    partitions: tuple[str, ...] = ()
    suspended: bool = False


def text(path: Path | str) -> str | None:
    """A small file without its final newline; None when it can not be read."""
    try:
        return content(path).decode(errors="surrogateescape").removesuffix("\n")
    except (OSError, ValueError):
        return None


def content(path: Path | str) -> bytes:
    """A small file. Attaching reads some hundred of them: a buffer would ask the kernel four things more for each."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while part := os.read(fd, _PIECE):
            found += part
        return found
    finally:
        os.close(fd)


def _number(path: Path) -> int | None:
    found = text(path)
    return int(found) if found is not None and found.isdigit() else None


def loop_device(number: int, sys: Path = SYS) -> LoopDevice | None:
    """None when the device is not bound to a file, or was cut off from it and only waits for who has it open."""
    name = f"loop{number}"
    folder = sys / "block" / name
    backing = text(folder / "loop" / "backing_file")
    if backing is None or _number(folder / "loop" / "offset") == NOWHERE:
        return None
    size = (_number(folder / "size") or 0) * _SECTOR
    return LoopDevice(number, name, backing, size, _number(folder / "diskseq"), text(folder / "ro") == "1")


def loop_devices(sys: Path = SYS) -> tuple[LoopDevice, ...]:
    """All bound loop devices, by number."""
    numbers = sorted(int(match[1]) for entry in listed(sys / "block") if (match := _LOOP.fullmatch(entry)))
    return tuple(device for number in numbers if (device := loop_device(number, sys)) is not None)


def mapper_device(title: str, sys: Path = SYS) -> MapperDevice | None:
    """The device-mapper device of that name."""
    for name in listed(sys / "block"):
        if name.startswith("dm-") and text(f"{sys}/block/{name}/dm/name") == title:
            return mapper_named(name, sys)
    return None


def mapper_named(name: str, sys: Path = SYS) -> MapperDevice | None:
    """The device-mapper device with the kernel's name (`dm-4`)."""
    folder = sys / "block" / name
    title = text(folder / "dm" / "name")
    if title is None:
        return None
    size = (_number(folder / "size") or 0) * _SECTOR
    return MapperDevice(name, title, text(folder / "dm" / "uuid") or "", size, listed(folder / "slaves"))


def mapper_devices(prefix: str, sys: Path = SYS) -> tuple[MapperDevice, ...]:
    """All device-mapper devices whose title begins like that."""
    names = (name for name in listed(sys / "block") if name.startswith("dm-"))
    ours = (name for name in names if (text(f"{sys}/block/{name}/dm/name") or "").startswith(prefix))
    return tuple(device for name in ours if (device := mapper_named(name, sys)) is not None)


def number_of(name: str, sys: Path = SYS) -> str:
    """The device number (`253:4`) of a block device; empty when there is none."""
    return text(sys / "block" / name / "dev") or ""


def numbers_of(name: str, sys: Path = SYS) -> frozenset[str]:
    """Its device number and those of its partitions; empty when there is no such device."""
    folder = sys / "block" / name
    parts = (entry for entry in listed(folder) if (folder / entry / "partition").exists())
    return frozenset(number for each in ("", *parts) if (number := text(folder / each / "dev")))


def is_read_only(name: str, sys: Path = SYS) -> bool:
    return text(sys / "block" / name / "ro") == "1"


def diskseq(name: str, sys: Path = SYS) -> int | None:
    """The kernel's number of this appearance of the disk, never used twice; None before Linux 5.15."""
    return _number(sys / "block" / name / "diskseq")


def disks(sys: Path = SYS) -> tuple[Disk, ...]:
    """Every block device that is no partition, in the order of the names."""
    return tuple(_disk(name, sys / "block" / name) for name in listed(sys / "block"))


def _disk(name: str, folder: Path) -> Disk:
    size = (_number(folder / "size") or 0) * _SECTOR
    if name.startswith("dm-"):
        told = [text(folder / "dm" / key) or "" for key in ("uuid", "name", "suspended")]
        return Disk(name, size, told[0], told[1], suspended=told[2] == "1")
    parts = (entry for entry in listed(folder) if (folder / entry / "partition").exists())
    return Disk(name, size, "", "", tuple(parts))


def users_of(name: str, sys: Path = SYS, proc: Path = PROC) -> tuple[str, ...]:
    """Who uses a block device, for people: devices stacked on it or its partitions, mounts, swap."""
    folder = sys / "block" / name
    parts = [entry for entry in listed(folder) if entry.startswith(name)]
    users = []
    for place in (folder, *(folder / part for part in parts)):
        for holder in listed(place / "holders"):
            title = text(sys / "block" / holder / "dm" / "name")
            users.append(f"{holder} ({title})" if title else holder)
        users += [f"mounted on {where}" for where in _mounted(text(place / "dev"), proc)]
    swaps = {line.split()[0] for line in (text(proc / "swaps") or "").splitlines()[1:] if line.split()}
    users += [f"swap on {swap}" for swap in sorted(swaps & {f"/dev/{entry}" for entry in (name, *parts)})]
    return tuple(users)


def _mounted(device_number: str | None, proc: Path) -> list[str]:
    lines = (text(proc / "self" / "mountinfo") or "").splitlines()
    fields = [line.split(" ") for line in lines]
    return [part[4] for part in fields if len(part) > 4 and part[2] == device_number]


def stands_on(name: str, sys: Path = SYS) -> tuple[str, ...]:
    """The device itself, and all that it lies on, down to the disks."""
    below = (one for each in listed(sys / "block" / name / "slaves") for one in stands_on(each, sys))
    return (name, *below)


def has_mapper(sys: Path = SYS) -> bool:
    """Whether device-mapper is in the kernel now. (A node in /dev says nothing: tools make it without a driver.)"""
    return (sys / "class" / "misc" / "device-mapper").exists()


def listed(folder: Path | str) -> tuple[str, ...]:
    """The names in a folder, sorted; none where it can not be read."""
    try:
        return tuple(sorted(os.listdir(folder)))  # noqa: PTH208 - a path for each name costs more than the list
    except OSError:
        return ()
