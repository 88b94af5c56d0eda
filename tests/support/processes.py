"""Processes of a host in a folder that have a device open, as its /proc shows them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NODE = next((path for path in sorted(Path("/dev").iterdir()) if stat.S_ISBLK(path.stat().st_mode)), None)
"""Any block device of this machine: its number is what a device in the folder is given. It is never opened."""
needs_node = pytest.mark.skipif(NODE is None, reason="no block device here")


def numbered(device: Path) -> None:
    """The device (or partition) of that sysfs folder has the number of `NODE`."""
    assert NODE is not None
    number = NODE.stat().st_rdev
    (device / "dev").write_text(f"{os.major(number)}:{os.minor(number)}\n")


def process(proc: Path, pid: int, comm: str, *opened: str) -> None:
    """One that has these open, as its descriptors name them."""
    (proc / f"{pid}/fd").mkdir(parents=True)
    (proc / f"{pid}/comm").write_text(f"{comm}\n")
    for number, target in enumerate(opened):
        (proc / f"{pid}/fd/{number}").symlink_to(target)


@contextmanager
def opened(device: Path, proc: Path, comm: str = "qemu-system-x86") -> Iterator[None]:
    """Process 4711 has the device of that sysfs folder open."""
    numbered(device)
    process(proc, 4711, comm, f"{NODE}")
    try:
        yield
    finally:
        shutil.rmtree(proc / "4711")
