"""A volume's bytes on their way into an image: as they lie there, or packed by gzip.

They are packed in the same way each time, so that what an earlier run has sent can be compared.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator

SEGMENT = 4 << 20
_LEVEL = 1  # what a volume holds packs nearly as well, at a quarter of the time
_GZIP = 31


def stream(fd: int, size: int, *, compress: bool) -> Iterator[tuple[int, bytes]]:
    """Piece by piece: how many of the `size` bytes are read, and what is to be sent. Blocking."""
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP) if compress else None
    done = 0
    while done < size:
        block = os.pread(fd, min(SEGMENT, size - done), done)
        if not block:
            raise OSError(f"the volume ended at byte {done}")
        done += len(block)
        yield done, packer.compress(block) if packer is not None else block
    if packer is not None:
        yield done, packer.flush()


async def pieces(fd: int, size: int, tell: Callable[[int], None], *, compress: bool) -> AsyncIterator[bytes]:
    """The same for senders, read and packed in a thread; `tell` hears how much of the volume is sent."""
    whole = stream(fd, size, compress=compress)
    while (piece := await asyncio.to_thread(next, whole, None)) is not None:
        done, data = piece
        if data:
            yield data
        tell(done)
