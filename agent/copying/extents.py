"""Which parts of a source hold data, cut into pieces for the workers."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from agent.copying.model import ALIGN, Content

# EIO: a file on SMB with more than one range of data (seen with the Samba of Debian 12).
_UNTOLD = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EIO})


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `offset` to `offset + length`: to be copied, or (`data` false) to be written as zeros."""

    offset: int
    length: int
    data: bool

    @property
    def end(self) -> int:
        return self.offset + self.length


def extents(fd: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges (begin, end) below `size` that hold data, in order, widened to whole blocks.

    What can not tell its holes (most devices) is one range, and so is the rest of what fails to: reading it will show.
    """
    position = start
    while position < size:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno == errno.ENXIO:
                return
            if failure.errno not in _UNTOLD:
                raise
            yield position, size
            return
        end = _hole(fd, begin, size)
        begin = max(position, begin // ALIGN * ALIGN)
        end = min(size, -(-end // ALIGN) * ALIGN)
        if begin >= size:
            return
        yield begin, end
        position = end


def _hole(fd: int, begin: int, size: int) -> int:
    try:
        return os.lseek(fd, begin, os.SEEK_HOLE)
    except OSError as failure:
        if failure.errno in {*_UNTOLD, errno.ENXIO}:
            return size
        raise


def data_bytes(source: Content, start: int, size: int) -> int:
    """How many bytes between `start` and `size` the ranges hold."""
    return sum(end - begin for begin, end in source.extents(start, size))


def pieces(
    source: Content, start: int, source_size: int, dest_size: int, *, length: int, write_zeros: bool
) -> Iterator[Piece]:
    """Cut the ranges from `start` on into pieces of at most `length` bytes, in order of their offset.

    With `write_zeros` the pieces cover everything up to `dest_size`; else holes are left out.
    """
    position = start
    for begin, end in source.extents(start, source_size):
        if write_zeros:
            yield from _cut(position, begin, length, data=False)
        yield from _cut(begin, end, length, data=True)
        position = end
    if write_zeros:
        # A source that ends inside a block: fill that block up, so that what follows is aligned again.
        whole = min(dest_size, -(-position // ALIGN) * ALIGN)
        yield from _cut(position, whole, length, data=False)
        yield from _cut(whole, dest_size, length, data=False)


def _cut(begin: int, end: int, length: int, *, data: bool) -> Iterator[Piece]:
    for offset in range(begin, end, length):
        yield Piece(offset, min(length, end - offset), data)
