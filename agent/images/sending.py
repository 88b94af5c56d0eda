"""A volume's bytes on their way into an image: as they lie there or as a qcow2, packed by gzip or not.

They are packed in the same way each time, so that what an earlier run has sent can be compared. What the file system
knows to be a hole is not read.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator

from agent.copying.extents import extents
from agent.images import qcow2_out
from agent.images.qcow2_out import Plan

SEGMENT = 4 << 20
_LEVEL = 1  # what a volume holds packs nearly as well, at a quarter of the time
_GZIP = 31


async def planned(fd: int, size: int, disk_format: str) -> Plan | None:
    """How a qcow2 of the volume is laid out; None for a raw image."""
    return await asyncio.to_thread(qcow2_out.plan, fd, size) if disk_format == "qcow2" else None


def stream(fd: int, size: int, *, compress: bool, plan: Plan | None = None) -> Iterator[tuple[int, bytes]]:
    """Piece by piece: how many of the `size` bytes are read, and what is to be sent. Blocking."""
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP) if compress else None
    done = 0
    for done, block in _raw(fd, size) if plan is None else qcow2_out.blocks(fd, plan):
        yield done, packer.compress(block) if packer is not None else block
    if packer is not None:
        yield done, packer.flush()


def _raw(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    hole, position = bytes(SEGMENT), 0
    if os.lseek(fd, 0, os.SEEK_END) < size:
        raise OSError(f"the volume is shorter than {size} bytes")
    for begin, end in (*extents(fd, 0, size), (size, size)):
        for at in range(position, begin, SEGMENT):
            yield min(begin, at + SEGMENT), hole if begin - at >= SEGMENT else hole[: begin - at]
        position = begin
        while position < end:
            block = os.pread(fd, min(SEGMENT, end - position), position)
            if not block:
                raise OSError(f"the volume ended at byte {position}")
            position += len(block)
            yield position, block


async def pieces(
    fd: int, size: int, tell: Callable[[int], None], *, compress: bool, plan: Plan | None = None
) -> AsyncIterator[bytes]:
    """The same for senders, read and packed in a thread; `tell` hears how much of the volume is sent."""
    whole = stream(fd, size, compress=compress, plan=plan)
    while (piece := await asyncio.to_thread(next, whole, None)) is not None:
        done, data = piece
        if data:
            yield data
        tell(done)
