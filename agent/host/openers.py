"""Which processes have a block device open: for commands and verbs, since root alone sees those of others."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from agent.host import sysfs

LOOKERS = frozenset({"multipathd", "systemd-udevd", "(udev-worker)"})
"""They have any disk open to look at it, for a moment or for good, and lose nothing with it."""


def openers(name: str, sys: Path = sysfs.SYS, proc: Path = sysfs.PROC, *, but: Collection[str] = ()) -> tuple[str, ...]:
    """Each as `process 4711 (qemu-system-x86)`, by number, but for those of these names; of its partitions, too.

    Blocking reads of every process that may be looked at.
    """
    numbers = sysfs.numbers_of(name, sys)
    found = sorted(pid for pid in _processes(proc) if numbers & _opened(proc / str(pid) / "fd")) if numbers else []
    named = ((pid, sysfs.text(proc / str(pid) / "comm") or "?") for pid in found)
    return tuple(f"process {pid} ({comm})" for pid, comm in named if comm not in but)


def _processes(proc: Path) -> Iterator[int]:
    with suppress(FileNotFoundError):
        for entry in os.scandir(proc):
            if entry.name.isdecimal():
                yield int(entry.name)


def _opened(folder: Path) -> set[str]:
    """The numbers (`253:4`) of the block devices that a process has open."""
    numbers = set()
    with suppress(OSError):  # it has ended, or is another user's
        for entry in os.scandir(folder):
            with suppress(OSError):  # it was closed meanwhile
                # Its name first: to ask what a file is that lies on a server which hangs, is to hang, too.
                if "/dev/" in str(Path(entry.path).readlink()):
                    status = entry.stat()
                    if stat.S_ISBLK(status.st_mode):
                        numbers.add(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    return numbers
