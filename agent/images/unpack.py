"""An image in container format `compressed`: unpacked from gzip, in bounded memory, into no more than it may have.

What the packed bytes claim about their size is not believed. Zeros become holes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable

from agent.copying.errors import CopyCancelled
from agent.images.errors import ImageSize, NotCompressed
from agent.luks.errors import Truncated

MAGIC = b"\x1f\x8b\x08"
MOST_RATIO = 1032
"""Deflate gives no more bytes than that for each of its own."""
_READ, _WRITE = 1 << 20, 4 << 20
_ZEROS = bytes(65536)


def room(stored: int, limit: int) -> int:
    """Bytes that `stored` packed ones may need at most, if they keep to `limit`."""
    return min(limit, stored * MOST_RATIO)


def unpack(fd: int, to: int, limit: int, tell: Callable[[int], None], stop: Callable[[], bool]) -> int:
    """Write what `fd` unpacks to into `to` from its start; returns its bytes. Blocking; several members follow on.

    Raises NotCompressed, Truncated, ImageSize when it would be more than `limit`, CopyCancelled once `stop()` is true.
    """
    offset = done = 0
    member: zlib._Decompress | None = None
    while block := os.pread(fd, _READ, offset):
        offset += len(block)
        while block:
            if member is None:
                if done and not block.strip(b"\0"):
                    break  # tapes and some tools fill up with zeros
                member = zlib.decompressobj(wbits=31)
            data, block, ended = _some(member, block)
            if stop():
                raise CopyCancelled(done=done, total=limit)
            if done + len(data) > limit:
                gib = -(-(done + len(data)) // (1 << 30))
                raise ImageSize(virtual=done + len(data), limit=limit, gib=gib)
            _write(to, data, done)
            done += len(data)
            tell(done)
            member = None if ended else member
    if member is not None:
        raise Truncated
    if not done:
        raise NotCompressed
    os.ftruncate(to, done)
    os.fsync(to)
    return done


def _some(member: zlib._Decompress, block: bytes) -> tuple[bytes, bytes, bool]:
    """At most 4 MiB of clear bytes, what is left of the packed ones, and whether the member ended."""
    try:
        data = member.decompress(block, _WRITE)
    except zlib.error:
        raise NotCompressed from None
    return data, member.unused_data if member.eof else member.unconsumed_tail, member.eof


def _write(to: int, data: bytes, offset: int) -> None:
    for at in range(0, len(data), len(_ZEROS)):
        piece = data[at : at + len(_ZEROS)]
        if piece == _ZEROS[: len(piece)]:
            continue
        view, place = memoryview(piece), offset + at
        while view:
            count = os.pwrite(to, view, place)
            view, place = view[count:], place + count
