"""Half-made files and devices of volumes: opened, emptied, and made a new encrypted volume without content."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from agent.luks.container import check_format, create, reveal
from agent.luks.errors import TargetInUse
from agent.luks.model import Format, MiB, Secret, device_bytes, header_bytes
from agent.luks.stored import Put, put


def half_made(path: Path) -> int:
    """Open the file or device that is to become a volume, as it is; raises TargetInUse when it is none of its own."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as failure:
        raise TargetInUse from failure
    info = os.fstat(fd)
    if not stat.S_ISBLK(info.st_mode) and (not stat.S_ISREG(info.st_mode) or info.st_nlink > 1):
        os.close(fd)
        raise TargetInUse
    return fd


def holds(fd: int, size: int) -> bool:
    """Whether it is as large as a volume of `size` bytes is to be: a file just so, a device at least."""
    have = os.lseek(fd, 0, os.SEEK_END)
    return have >= size if _is_device(fd) else have == size


def empty(fd: int, size: int) -> None:
    """Forget what an earlier, killed run left, so that it can not be opened, and give a file its size. Blocking.

    What a device holds behind the place of a header stays; TargetInUse when it has not that much room.
    """
    if not _is_device(fd):
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size)
        return
    have = os.lseek(fd, 0, os.SEEK_END)
    if have < size:
        raise TargetInUse
    length = min(have, header_bytes(Format("luks2")))
    put(fd, *(Put(at, bytes(min(MiB, length - at))) for at in range(0, length, MiB)))


def _is_device(fd: int) -> bool:
    return stat.S_ISBLK(os.fstat(fd).st_mode)


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
