"""What is mounted where, from the kernel's own table; reading it asks no file system anything, so it never hangs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

TABLE = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """`device` is what `os.stat` of anything in it tells as `st_dev`."""

    point: str
    type: str
    source: str
    device: int
    read_only: bool


def mount_of(path: Path, table: Path = TABLE) -> Mount | None:
    """The mount that an absolute path lies in, by its name alone: symbolic links are not followed."""
    place = PurePosixPath(os.path.normpath(path))
    found = [mount for mount in mounts(table) if place.is_relative_to(mount.point)]
    # Of two on one place the later hides the earlier.
    return max(enumerate(found), key=lambda each: (len(each[1].point), each[0]))[1] if found else None


def type_of(fd: int, table: Path = TABLE) -> str:
    """The type of the file system of an opened file, as far as the table knows it by its device number; else empty."""
    device = os.fstat(fd).st_dev
    return next((mount.type for mount in mounts(table) if mount.device == device), "")


def mounts(table: Path = TABLE) -> list[Mount]:
    """All of this process's mounts, in the order in which they were made."""
    return [mount for line in table.read_text(errors="surrogateescape").splitlines() if (mount := parsed(line))]


def parsed(line: str) -> Mount | None:
    """One line of mountinfo; None when it is none."""
    before, dash, after = line.partition(" - ")
    left, right = before.split(" "), after.split(" ")
    if not dash or len(left) < 6 or len(right) < 3 or not re.fullmatch(r"\d+:\d+", left[2]):
        return None
    major, minor = map(int, left[2].split(":"))
    flags = {*left[5].split(","), *right[2].split(",")}
    return Mount(_plain(left[4]), right[0], _plain(right[1]), os.makedev(major, minor), "ro" in flags)


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
