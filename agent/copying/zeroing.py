"""Making a device read as zeros: by the device's own means where it has some, under a rate limit, resumable."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.copying.errors import CopyCancelled, translated
from agent.copying.model import ALIGN, Checkpoint, CopyOptions, CopyProgress, Opener
from agent.copying.throttle import Throttle
from agent.host.run import uninterrupted

_BLKDISCARD, _BLKZEROOUT = 0x1277, 0x127F
_PIECE = 32 << 20
_SLICE_S = 0.1
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Range:
    """The bytes `start` up to `end` of a device; both whole sectors."""

    open: Opener
    start: int
    end: int


async def zero(
    where: Range,
    options: CopyOptions,
    progress: Callable[[CopyProgress], None],
    checkpoint: Checkpoint | None,
    cancel: asyncio.Event,
) -> None:
    """Write zeros over the range; durable on return. Goes on at `checkpoint.start` when that lies inside.

    CopyCancelled, CopyRefused, CopyFailed. A task that is cancelled ends its thread before it goes.
    """
    begin = where.start if checkpoint is None else min(max(where.start, checkpoint.start), where.end)
    throttle, stop = options.throttle(), threading.Event()
    started = time.monotonic()
    fd = await _in_thread(lambda: where.open(os.O_RDWR))
    done = saved = begin
    try:
        while done < where.end:
            if cancel.is_set():
                raise CopyCancelled(done=done - where.start, total=where.end - where.start)
            upto = min(where.end, done + _piece(options.slowest()))
            await _one(fd, done, upto, throttle, stop)
            done = upto
            progress(_told(options.phase, where, begin, done, time.monotonic() - started))
            if checkpoint is not None and done - saved >= options.checkpoint_every:
                await _in_thread(lambda: os.fdatasync(fd))
                await checkpoint.save(done)
                saved = done
        await _in_thread(lambda: os.fdatasync(fd))
    finally:
        stop.set()
        await uninterrupted(asyncio.to_thread(os.close, fd))


def discard(fd: int, start: int, end: int) -> bool:
    """Tell the device that the range is not needed; false where it does not listen. Says nothing about its content."""
    try:
        fcntl.ioctl(fd, _BLKDISCARD, struct.pack("QQ", start, end - start))
    except OSError as failure:
        if failure.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL}:
            return False
        raise
    return True


async def _one(fd: int, start: int, end: int, throttle: Throttle, stop: threading.Event) -> None:
    def work() -> None:
        if throttle.wait(end - start, stop):
            zero_now(fd, start, end)

    try:
        await _in_thread(work)
    except asyncio.CancelledError:
        stop.set()
        raise


def zero_now(fd: int, start: int, end: int) -> None:
    """Blocking. A device uses its own command (write zeroes, write same) or is written to by the kernel."""
    try:
        fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", start, end - start))
    except OSError as failure:
        if failure.errno not in {errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP}:
            raise
        _write(fd, start, end)


def _write(fd: int, start: int, end: int) -> None:
    zeros = memoryview(bytes(1 << 20))
    while start < end:
        start += os.pwrite(fd, zeros[: end - start], start)


async def _in_thread(call: Callable[[], _T]) -> _T:
    try:
        return await uninterrupted(asyncio.to_thread(call))
    except OSError as failure:
        raise translated(failure, "destination") from failure


def _piece(rate: int | None) -> int:
    if rate is None:
        return _PIECE
    return min(_PIECE, max(16 * ALIGN, int(rate * _SLICE_S) // ALIGN * ALIGN))


def _told(phase: str, where: Range, begin: int, done: int, seconds: float) -> CopyProgress:
    rate = (done - begin) / seconds if seconds > 0 else 0.0
    total = where.end - where.start
    return CopyProgress(phase, done - where.start, total, rate, (where.end - done) / rate if rate else None)
