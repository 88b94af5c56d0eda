"""A volume group to try things in, and looks at what is in it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
GROUP = "bricks-t"
# Where an agent that makes, grows and removes volumes on LVM is killed (tests/kernel/test_lvm_agent.py).
POINTS = ("backend.lvm.made", "backend.lvm.zeroed", "backend.lvm.grown", "backend.lvm.dying", "backend.lvm.wiped")
REPLACING = "backend.lvm.replacing"


@contextlib.contextmanager
def volume_group(disk: Path) -> Iterator[str]:
    """A group on a disk that is full of what somebody else left there."""
    tool("modprobe", "--all", "dm-mod", "dm-thin-pool", "dm-crypt")
    with disk.open("r+b", buffering=0) as out:
        for offset in range(0, 256 * MIB, 2 * MIB):
            os.pwrite(out.fileno(), b"\xee" * 65536, offset)
    tool("pvcreate", "--yes", "--force", "--force", str(disk))
    tool("vgcreate", GROUP, str(disk))
    try:
        yield GROUP
    finally:
        tool("vgremove", "--yes", "--force", GROUP)
        tool("pvremove", "--yes", str(disk))


def listed() -> list[str]:
    return sorted(tool("lvs", "--noheadings", "-o", "lv_name", GROUP).split())


def watched(device: Path) -> bool:
    """Whether udevd looks at the device anew when somebody has written and closed it."""
    number = device.stat().st_rdev
    return Path(f"/run/udev/watch/b{os.major(number)}:{os.minor(number)}").is_symlink()


def tool(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


def put(path: Path, data: bytes, offset: int = 0) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def digest(path: Path, size: int) -> str:
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as source:
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while size:
            piece = source.read(min(size, MIB))
            assert piece
            found.update(piece)
            size -= len(piece)
    return found.hexdigest()


def zeros(size: int) -> str:
    return hashlib.sha256(bytes(size)).hexdigest()
