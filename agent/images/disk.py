"""The disk that a guest sees in a qcow2 image, as the copy engine reads it: two tables deep, by rule.

Nothing of the image is believed: each entry is checked when it is used. Encrypted clusters are decrypted with the
number of their place in the file; compressed ones are never encrypted, in encrypted images neither. What is looked
at is a unit: a cluster, or one of its 32 subclusters where the image has those.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator

from agent.copying.model import Content
from agent.images import guest
from agent.images.errors import Malformed
from agent.images.qcow2 import Qcow2
from agent.luks.errors import Truncated
from agent.luks.sectors import Sectors
from agent.luks.window import Window

_OFFSET = 0x00FFFFFFFFFFFE00
_COPIED, _COMPRESSED, _ALL_ZERO = 1 << 63, 1 << 62, 1
_TABLES_BYTES = 8 << 20
_HOLE, _PACKED = -1, -2
_SUBCLUSTERS = 32


class Disk:
    """`window` is for the tables, `below` for the data; both are the image's file. Raises Malformed, Truncated."""

    def __init__(self, window: Window, below: Content, image: Qcow2, cipher: Sectors | None) -> None:
        self._window, self._below, self._image, self._cipher = window, below, image, cipher
        self._cluster = 1 << image.cluster_bits
        self._subs = _SUBCLUSTERS if image.extended_l2 else 1
        self._unit = self._cluster // self._subs
        self._words = 2 if image.extended_l2 else 1
        self._per_table = self._cluster // (8 * self._words)
        self._zero = _ALL_ZERO if image.version >= 3 and not image.extended_l2 else 0
        self._first = _words(window, image.l1_offset, image.l1_entries)
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._kept = max(2, _TABLES_BYTES // self._cluster)
        self._lock = threading.Lock()

    def size(self) -> int:
        return self._image.virtual_size

    def extents(self, start: int, size: int) -> Iterator[tuple[int, int]]:
        """Whole units that hold data, neighbours as one."""
        begin = end = start // self._unit * self._unit
        for at, length in self._allocated(start // self._cluster, -(-size // self._cluster)):
            if at != end:
                if max(begin, start) < min(end, size):
                    yield max(begin, start), min(end, size)
                begin = at
            end = at + length
        if max(begin, start) < min(end, size):
            yield max(begin, start), min(end, size)

    def _allocated(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Where data begins, and how long it is, in clusters `first` to `last`."""
        index = first
        while index < last:
            table = self._table(index // self._per_table)
            upto = min(last, (index // self._per_table + 1) * self._per_table)
            if table is not None:
                for cluster in range(index, upto):
                    entry = table[cluster % self._per_table * self._words]
                    if not entry & ~_COPIED or (entry & self._zero and not entry & _COMPRESSED):
                        continue
                    if self._subs == 1 or entry & _COMPRESSED:
                        yield cluster * self._cluster, self._cluster
                        continue
                    bitmap = table[cluster % self._per_table * self._words + 1]
                    for sub in range(self._subs):
                        if bitmap >> sub & 1:
                            yield cluster * self._cluster + sub * self._unit, self._unit
            index = upto

    def read(self, view: memoryview, offset: int, length: int) -> int:
        done = 0
        length = min(length, self._image.virtual_size - offset)
        while done < length:
            done += self._run(view[done:], offset + done, length - done)
        return max(0, length)

    def _run(self, view: memoryview, offset: int, length: int) -> int:
        """Read what lies in one piece in the file; returns its length."""
        host = self._place(offset // self._unit)
        if host == _PACKED:
            inside = offset % self._cluster
            count = min(length, self._cluster - inside)
            entry, _ = self._entry(offset // self._cluster)
            clear = guest.inflated(self._window, self._image, entry, self._cluster)
            view[:count] = clear[inside : inside + count]
            return count
        inside = offset % self._unit
        count = min(length, self._unit - inside)
        while count < length:
            if self._place((offset + count) // self._unit) != (host if host == _HOLE else host + inside + count):
                break
            count = min(length, count + self._unit)
        if host == _HOLE:
            view[:count] = bytes(count)
        else:
            self._data(view, host + inside, count)
        return count

    def _data(self, view: memoryview, host: int, count: int) -> None:
        got = self._below.read(view, host, count)
        if got < count:
            # The last cluster may reach over the end of the file: the rest counts as zeros in the file.
            if (host + count - 1) // self._cluster * self._cluster >= self._window.length:
                raise Truncated
            view[got:count] = bytes(count - got)
        if self._cipher is not None:
            self._cipher.decrypt(view[:count], host // 512)

    def _entry(self, cluster: int) -> tuple[int, int]:
        """The entry of a cluster, and the bitmap of its subclusters where the image has those."""
        table = self._table(cluster // self._per_table)
        if table is None:
            return 0, 0
        at = cluster % self._per_table * self._words
        return table[at], table[at + 1] if self._words == 2 else 0

    def _place(self, unit: int) -> int:
        """Where a unit lies in the file; _HOLE when it reads as zeros, _PACKED when its cluster is compressed."""
        cluster, sub = divmod(unit, self._subs)
        entry, bitmap = self._entry(cluster)
        if entry & _COMPRESSED:
            if bitmap:
                raise Malformed(rule="a compressed cluster has subclusters")
            return _PACKED
        host = entry & _OFFSET
        if entry & ~(_OFFSET | _COPIED | self._zero):
            raise Malformed(rule="an entry of a second-level table has reserved bits set")
        if host % self._cluster:
            raise Malformed(rule="a cluster is not aligned")
        if self._subs == 1:
            return host if host and not entry & self._zero else _HOLE
        held, zero = bitmap >> sub & 1, bitmap >> (_SUBCLUSTERS + sub) & 1
        if held and (zero or not host):
            raise Malformed(rule="a subcluster is said to hold both data and zeros, or lies nowhere")
        return host + sub * self._unit if held else _HOLE

    def _table(self, index: int) -> array[int] | None:
        if index >= len(self._first):
            raise Malformed(rule="the first-level table does not cover the virtual size")
        entry = self._first[index]
        place = entry & _OFFSET
        if entry & ~(_OFFSET | _COPIED):
            raise Malformed(rule="an entry of the first-level table has reserved bits set")
        if not place:
            return None
        if place % self._cluster:
            raise Malformed(rule="a second-level table is not aligned")
        with self._lock:
            if place in self._tables:
                self._tables.move_to_end(place)
                return self._tables[place]
        table = _words(self._window, place, self._per_table * self._words)
        with self._lock:
            self._tables[place] = table
            while len(self._tables) > self._kept:
                self._tables.popitem(last=False)
        return table


def _words(window: Window, offset: int, count: int) -> array[int]:
    found = array("Q", window.exact(offset, count * 8))
    if sys.byteorder == "little":
        found.byteswap()
    return found
