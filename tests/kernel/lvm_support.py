"""A volume group to try things in, and looks at what is in it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
GROUP = "bricks-t"
# Where an agent that makes, grows and removes volumes on LVM is killed (tests/kernel/test_lvm_agent.py).
POINTS = ("backend.lvm.made", "backend.lvm.zeroed", "backend.lvm.grown", "backend.lvm.dying", "backend.lvm.wiped")
REPLACING = "backend.lvm.replacing"
RULES = Path("/etc/udev/rules.d/12-brickyard.rules")


@contextlib.contextmanager
def volume_group(disk: Path) -> Iterator[str]:
    """A group on a disk that is full of what somebody else left there, with our udev rules and the user they name."""
    if not any(user.pw_name == "brickyard" for user in pwd.getpwall()):
        tool("useradd", "--system", "brickyard")
    shutil.copy(Path(__file__).parents[2] / "udev" / RULES.name, RULES)
    tool("udevadm", "control", "--reload")
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
        RULES.unlink()
        tool("udevadm", "control", "--reload")


def listed() -> list[str]:
    return sorted(tool("lvs", "--noheadings", "-o", "lv_name", GROUP).split())


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
