"""The bytes of one active logical volume: opened by the agent's own user, verified to be the right one, then used."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.backends.base import Work
from agent.backends.errors import DeviceDenied
from agent.copying.model import Opener
from agent.copying.zeroing import Range, discard, zero
from agent.host import sysfs
from agent.host.run import uninterrupted


@dataclass(frozen=True, slots=True)
class Device:
    """`path` is `/dev/dm-4`, `uuid` what the kernel calls that volume; `size` in bytes, whole extents."""

    backend: str
    ident: str
    path: Path
    uuid: str
    size: int

    @property
    def open(self) -> Opener:
        """Opens it; fails when the number has become another volume's. DeviceDenied, OSError."""
        return self._open

    def _open(self, flags: int) -> int:
        try:
            fd = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        except PermissionError as error:
            raise DeviceDenied(device=str(self.path), id=self.ident, backend=self.backend) from error
        found = os.fstat(fd)
        there = sysfs.mapper_named(self.path.name)
        # As long as it is open it can not become another one, so what is read after the open is true of it.
        if not stat.S_ISBLK(found.st_mode) or there is None or there.uuid != self.uuid:
            os.close(fd)
            raise FileNotFoundError(2, "the device is no longer this volume", str(self.path))
        return fd

    def readable(self) -> None:
        """DeviceDenied when the agent's user may not use it."""
        os.close(self._open(os.O_RDWR))


async def clear(device: Device, start: int, work: Work, *, fresh: bool) -> None:
    """Make everything from `start` on read as zeros. `fresh`: a checkpoint is not about this device."""
    checkpoint = work.checkpoint
    if checkpoint is not None and fresh:
        checkpoint = replace(checkpoint, start=0)
    where = Range(device.open, start, device.size)
    await zero(where, work.options, work.progress, checkpoint, work.cancel)


async def give_back(device: Device) -> None:
    """Tell the disks below that they need not keep the content."""

    def work() -> None:
        fd = device.open(os.O_RDWR)
        try:
            discard(fd, 0, device.size)
        finally:
            os.close(fd)

    await in_thread(work)


async def in_thread(call: Callable[[], None]) -> None:
    await uninterrupted(asyncio.to_thread(call))
