"""A volume as a qcow2 file, written from its beginning to its end: the tables first, then the clusters that hold data.

Which clusters those are is known before anything is sent, so nothing has to be written twice and the length is known:
where the file system tells its holes by those, elsewhere (most devices) by reading all of it once more.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from agent.copying.extents import extents

BITS = 16
CLUSTER = 1 << BITS
_PER_L2 = CLUSTER // 8
_PER_BLOCK = CLUSTER // 2
_COPIED = 1 << 63
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_READ = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """`runs` are the clusters of the volume that hold data, as (first, past the last), in order."""

    size: int
    runs: tuple[tuple[int, int], ...]
    l1: int
    l2: int
    refcount_table: int
    refcount_blocks: int

    @property
    def data(self) -> int:
        """The cluster of the file where the data begin."""
        return 1 + self.refcount_table + self.refcount_blocks + _clusters(self.l1 * 8) + self.l2

    @property
    def clusters(self) -> int:
        return self.data + sum(end - begin for begin, end in self.runs)

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return self.clusters * CLUSTER


def plan(fd: int, size: int) -> Plan:
    """Look which clusters hold data; blocking. The volume must not be written to meanwhile."""
    found = _read_through(fd, size) if stat.S_ISBLK(os.fstat(fd).st_mode) else _told(fd, size)
    runs: list[tuple[int, int]] = []
    for begin, end in found:
        if runs and begin <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(end, runs[-1][1]))
        else:
            runs.append((begin, end))
    l1 = -(-size // (CLUSTER * _PER_L2))
    l2 = len({number for begin, end in runs for number in range(begin // _PER_L2, (end - 1) // _PER_L2 + 1)})
    blocks, table = 1, 1
    while True:
        made = Plan(size, tuple(runs), l1, l2, table, blocks)
        wanted = -(-made.clusters // _PER_BLOCK), _clusters(-(-made.clusters // _PER_BLOCK) * 8)
        if wanted == (blocks, table):
            return made
        blocks, table = max(blocks, wanted[0]), max(table, wanted[1])


def blocks(fd: int, made: Plan) -> Iterator[tuple[int, bytes]]:
    """The file, piece by piece, each with how much of the volume is read by then; blocking."""
    for piece in _tables(made):
        yield 0, piece
    for begin, end in made.runs:
        for first in range(begin, end, _READ):
            past = min(end, first + _READ)
            upto = min(past * CLUSTER, made.size)
            data = _exactly(fd, first * CLUSTER, upto)
            yield upto, data + bytes(past * CLUSTER - upto)
    yield made.size, b""


def _tables(made: Plan) -> Iterator[bytes]:
    refcounts = 1 + made.refcount_table
    l1_at = refcounts + made.refcount_blocks
    header = _HEADER.pack(
        b"QFI\xfb", 3, 0, 0, BITS, made.size, 0, made.l1, l1_at * CLUSTER, CLUSTER, made.refcount_table, 0, 0,
        0, 0, 0, 4, _HEADER.size,
    )  # fmt: skip
    yield header.ljust(CLUSTER, b"\0")
    yield _table([(refcounts + number) * CLUSTER for number in range(made.refcount_blocks)], made.refcount_table)
    for number in range(made.refcount_blocks):
        used = min(_PER_BLOCK, made.clusters - number * _PER_BLOCK)
        yield (b"\0\1" * used).ljust(CLUSTER, b"\0")
    l2 = list(_l2_tables(made))
    first = l1_at + _clusters(made.l1 * 8)
    where = {number: (first + count) * CLUSTER | _COPIED for count, number in enumerate(l2)}
    yield _table([where.get(number, 0) for number in range(made.l1)], _clusters(made.l1 * 8))
    yield from _l2_contents(made, l2)


def _l2_tables(made: Plan) -> Iterator[int]:
    last = -1
    for begin, end in made.runs:
        for number in range(begin // _PER_L2, (end - 1) // _PER_L2 + 1):
            if number > last:
                last = number
                yield number


def _l2_contents(made: Plan, numbers: list[int]) -> Iterator[bytes]:
    begins = [begin for begin, _ in made.runs]
    before = [0]
    for begin, end in made.runs:
        before.append(before[-1] + end - begin)
    for number in numbers:
        low, high = number * _PER_L2, (number + 1) * _PER_L2
        entries = array("Q", bytes(CLUSTER))
        for at in range(max(0, bisect_right(begins, low) - 1), len(begins)):
            begin, end = made.runs[at]
            if begin >= high:
                break
            place = made.data + before[at] - begin
            for cluster in range(max(low, begin), min(high, end)):
                entries[cluster - low] = (place + cluster) * CLUSTER | _COPIED
        yield _big_endian(entries)


def _table(entries: list[int], clusters: int) -> bytes:
    return _big_endian(array("Q", entries)).ljust(clusters * CLUSTER, b"\0")


def _big_endian(entries: array[int]) -> bytes:
    if sys.byteorder == "little":
        entries.byteswap()
    return entries.tobytes()


def _clusters(length: int) -> int:
    return max(1, -(-length // CLUSTER))


def _told(fd: int, size: int) -> Iterator[tuple[int, int]]:
    for begin, end in extents(fd, 0, size):
        yield begin // CLUSTER, -(-end // CLUSTER)


def _read_through(fd: int, size: int) -> Iterator[tuple[int, int]]:
    zeros = bytes(CLUSTER)
    for at in range(0, size, _READ * CLUSTER):
        piece = memoryview(_exactly(fd, at, min(size, at + _READ * CLUSTER)))
        for offset in range(0, len(piece), CLUSTER):
            part = bytes(piece[offset : offset + CLUSTER])
            if part != zeros[: len(part)]:
                yield (at + offset) // CLUSTER, (at + offset) // CLUSTER + 1


def _exactly(fd: int, begin: int, end: int) -> bytes:
    parts = []
    while begin < end:
        part = os.pread(fd, end - begin, begin)
        if not part:
            raise OSError(f"the volume ended at byte {begin}")
        parts.append(part)
        begin += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
