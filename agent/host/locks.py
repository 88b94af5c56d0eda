"""A lock on one resource of this host that also holds while a tool of a dead agent still works on it.

The lock is an flock on a file. Its descriptor is inherited by the tools (`run(lock_fd=...)`), and the kernel
keeps the lock until the last of them has closed it; so a new run never writes beside an old tool.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from agent.base.ids import checked_name
from agent.host.errors import ResourceBusy, ToolFailed, ToolTimeout
from agent.host.run import run, uninterrupted


@contextlib.asynccontextmanager
async def resource_lock(folder: Path, name: str, deadline: float) -> AsyncIterator[int]:
    """Hold the lock `name` of `folder`; yields the descriptor to hand to tools as `lock_fd`.

    Waits at most `deadline` seconds, then raises ResourceBusy. The folder must exist.
    """
    lock = _Lock(folder / f"{checked_name(name, 'lock')}.lock")
    try:
        await lock.acquire(time.monotonic() + deadline, deadline)
        yield lock.fd
    finally:
        await uninterrupted(asyncio.to_thread(lock.release))


class _Lock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.fd = -1

    async def acquire(self, until: float, waited: float) -> None:
        while True:
            await uninterrupted(asyncio.to_thread(self._open))
            left = until - time.monotonic()
            if not _try(self.fd) and (left <= 0 or not await _wait(self.fd, left)):
                raise ResourceBusy(name=self._path.stem, waited=waited)
            if await asyncio.to_thread(self._is_current):
                return

    def release(self) -> None:
        """Let go, and remove the file unless somebody else (an unkillable tool, a waiter) still holds it."""
        if self.fd < 0:
            return
        self._close()
        self._open()
        if _try(self.fd) and self._is_current():
            self._path.unlink()
        self._close()

    def _open(self) -> None:
        self._close()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self._path, flags, 0o600)

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _is_current(self) -> bool:
        """Whether the locked file is still the one at the path: its last holder may have removed it."""
        try:
            there = self._path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(self.fd)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _wait(fd: int, seconds: float) -> bool:
    """Let flock(1) wait on the shared descriptor: unlike a thread that waits, it can be stopped."""
    try:
        await run(["flock", "--wait", f"{seconds:.3f}", str(fd)], timeout=seconds + 5, pass_fds=(fd,))
    except (ToolFailed, ToolTimeout):
        return False
    return True
