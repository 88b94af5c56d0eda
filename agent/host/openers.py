"""Which processes have a block device open. Root alone sees those of others: for commands, not for the agent."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.host import sysfs


def openers(name: str, sys: Path = sysfs.SYS, proc: Path = sysfs.PROC) -> tuple[str, ...]:
    """Each as `process 4711 (qemu-system-x86)`, by number; blocking reads of every process that may be looked at."""
    number = sysfs.number_of(name, sys)
    found = sorted(pid for pid in _processes(proc) if number and number in _opened(proc / str(pid) / "fd"))
    return tuple(f"process {pid} ({sysfs.text(proc / str(pid) / 'comm') or '?'})" for pid in found)


def _processes(proc: Path) -> Iterator[int]:
    with suppress(FileNotFoundError):
        for entry in os.scandir(proc):
            if entry.name.isdecimal():
                yield int(entry.name)


def _opened(folder: Path) -> set[str]:
    """The numbers (`253:4`) of the block devices that a process has open."""
    numbers = set()
    try:
        for entry in os.scandir(folder):
            status = Path(entry.path).stat()
            if stat.S_ISBLK(status.st_mode):
                numbers.add(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    except OSError:  # it has ended, or is another user's
        return numbers
    return numbers
