"""Half-made files of volumes: opened, emptied, and made a new encrypted volume without content."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from agent.luks.container import check_format, create, reveal
from agent.luks.errors import TargetInUse
from agent.luks.model import Format, Secret, device_bytes


def half_made(path: Path) -> int:
    """Open the file that is to become a volume, as it is; raises TargetInUse when it is no file of its own."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as failure:
        raise TargetInUse from failure
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
        os.close(fd)
        raise TargetInUse
    return fd


def empty(fd: int, size: int) -> None:
    """Forget all that an earlier, killed run left in the file, and give it its size. Blocking."""
    os.ftruncate(fd, 0)
    os.ftruncate(fd, size)


async def make_blank(path: Path, usable: int, fmt: Format, secret: Secret, *, iterations: int) -> None:
    """Turn a half-made file into an encrypted volume without content, `usable` bytes inside; durable on return.

    What is read from it before it was written is random. Raises as `half_made` and `container.create`.
    """
    check_format(fmt)
    fd = await asyncio.to_thread(half_made, path)
    try:
        await asyncio.to_thread(_make, fd, usable, fmt, secret, iterations)
    finally:
        os.close(fd)


def _make(fd: int, usable: int, fmt: Format, secret: Secret, iterations: int) -> None:
    empty(fd, device_bytes(usable, fmt))
    create(fd, fmt, secret, iterations=iterations)
    reveal(fd, fmt)
