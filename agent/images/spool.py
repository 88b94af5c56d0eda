"""Room for bytes on their way: a bounded folder for what may touch a disk, bounded memory for clear data.

Spool files have no name once they are open, so that a killed agent leaves nothing behind. Admission is decided
before the first byte: what was admitted counts in full until it is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from agent.base.files import sync_folder
from agent.images.errors import MemorySpoolLimit, SpoolFull

_SUFFIX = ".spool"


class Spool:
    """A folder with room for `max_bytes`; `open()` it once at start."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max, self._admitted = folder, max_bytes, 0

    def open(self) -> int:
        """Make the folder and remove what a kill between two steps left; returns the number of files removed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        leftovers = list(self._folder.glob(f"*{_SUFFIX}"))
        for path in leftovers:
            path.unlink(missing_ok=True)
        sync_folder(self._folder)
        return len(leftovers)

    @contextlib.asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[int]:
        """A descriptor (read and write) of an empty nameless file with `size` bytes set aside; SpoolFull else."""
        there = await asyncio.to_thread(self._free)  # from here to the admission nobody else comes in between
        free = min(self._max, there) - self._admitted
        if size > free:
            raise SpoolFull(free=max(0, free), wanted=size)
        self._admitted += size
        try:
            fd = await asyncio.to_thread(self._nameless)
            try:
                yield fd
            finally:
                await asyncio.to_thread(os.close, fd)
        finally:
            self._admitted -= size

    def _free(self) -> int:
        stats = os.statvfs(self._folder)
        return stats.f_bavail * stats.f_frsize

    def _nameless(self) -> int:
        path = self._folder / f"{secrets.token_hex(16)}{_SUFFIX}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        path.unlink()
        return fd


class MemorySpool:
    """Memory for clear data, `max_bytes` over all users."""

    def __init__(self, max_bytes: int) -> None:
        self._max, self._admitted = max_bytes, 0

    @contextlib.asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[int]:
        """A descriptor of anonymous memory for up to `size` bytes.

        Raises MemorySpoolLimit when `size` can never fit, SpoolFull when it does not fit beside the others now.
        """
        if size > self._max:
            raise MemorySpoolLimit(wanted=size, limit=self._max)
        if size > self._max - self._admitted:
            raise SpoolFull(free=self._max - self._admitted, wanted=size)
        self._admitted += size
        try:
            fd = os.memfd_create("clear", os.MFD_CLOEXEC)
            try:
                yield fd
            finally:
                await asyncio.to_thread(os.close, fd)
        finally:
            self._admitted -= size


def room_for(
    size: int, *, clear: bool, disk: Spool, memory: MemorySpool
) -> contextlib.AbstractAsyncContextManager[int]:
    """Room to fetch an image into: memory when the volume is encrypted but the image is not (`clear`), else disk."""
    return memory.room(size) if clear else disk.room(size)
