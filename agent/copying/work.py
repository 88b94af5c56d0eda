"""The threads of one copy: they take pieces in order, move them, and know up to where all is written."""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from agent.copying.errors import SourceShort, translated
from agent.copying.extents import Piece
from agent.copying.files import Side
from agent.copying.model import ALIGN, Content, Dest
from agent.copying.throttle import Throttle

_TELL_EVERY_S = 0.2
_HUGE = 2 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """The opened destination, and what is to be done with the bytes that go there."""

    side: Side
    how: Dest

    def write(self, part: memoryview, offset: int) -> None:
        """Write `part`, which may be changed by it, where `offset` of the content lies."""
        if self.how.change is not None:
            self.how.change(part, offset)
        try:
            self.side.write(part, self.how.base + offset)
        except OSError as failure:
            raise translated(failure, "destination") from failure


class Work:
    """Shared by the workers. `notify` is called from them when there is progress to tell or to make durable."""

    def __init__(
        self,
        source: Content,
        target: Target,
        plan: Iterator[Piece],
        throttle: Throttle,
        *,
        start: int,
        tell_bytes: int,
        notify: Callable[[], None],
    ) -> None:
        self._source, self._target = source, target
        self._plan = plan
        self._throttle = throttle
        self._end = target.how.size
        self._tell_bytes = tell_bytes
        self._notify = notify
        self._lock = threading.Lock()
        self._in_flight: set[int] = set()
        self._given = start
        self._told_mark, self._told_at = start, time.monotonic()
        self.stop = threading.Event()
        self.moved = 0

    def mark(self) -> int:
        """Everything before this offset is written (not yet synced)."""
        with self._lock:
            return min(self._in_flight, default=self._given)

    def run(self, size: int) -> None:
        """Body of one worker: move pieces of at most `size` bytes until there are none or `stop` is set."""
        buffer, zeros = _room(size), _room(size)
        try:
            while (piece := self._take()) is not None:
                if not self._throttle.wait(piece.length, self.stop):
                    return
                self._move(piece, buffer, zeros)
                self._finish(piece)
        except BaseException:
            self.stop.set()
            raise

    def _take(self) -> Piece | None:
        with self._lock:
            if self.stop.is_set():
                return None
            try:
                piece = next(self._plan, None)
            except OSError as failure:
                raise translated(failure, "source") from failure
            if piece is None:
                self._given = self._end
                return None
            self._given = piece.end
            self._in_flight.add(piece.offset)
            return piece

    def _move(self, piece: Piece, buffer: memoryview, zeros: memoryview) -> None:
        part = buffer[: piece.length]
        if piece.data:
            try:
                got = self._source.read(buffer, piece.offset, piece.length)
            except OSError as failure:
                raise translated(failure, "source") from failure
            if got < piece.length:
                raise SourceShort(offset=piece.offset + got, size=self._end)
            if self._target.how.zeros_skippable and _is_zero(part, zeros):
                return
        elif self._target.how.change is None:
            part = zeros[: piece.length]
        else:
            part[:] = zeros[: piece.length]
        self._target.write(part, piece.offset)

    def _finish(self, piece: Piece) -> None:
        with self._lock:
            self._in_flight.discard(piece.offset)
            self.moved += piece.length
            mark, now = min(self._in_flight, default=self._given), time.monotonic()
            tell = mark - self._told_mark >= self._tell_bytes or now - self._told_at >= _TELL_EVERY_S
            if tell:
                self._told_mark, self._told_at = mark, now
        if tell:
            self._notify()


def _room(size: int) -> memoryview:
    """Memory of whole blocks that begins on a huge page; kept out of core dumps, as it may hold clear data.

    One huge page instead of 512 small ones is pinned and mapped for each transfer: half of what direct I/O costs.
    A process that is forked meanwhile must not make the kernel copy what a device is about to write to.
    """
    memory = mmap.mmap(-1, -(-size // _HUGE) * _HUGE + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_DONTDUMP)
    memory.madvise(mmap.MADV_DONTFORK)
    with suppress(OSError):  # A kernel without them.
        memory.madvise(mmap.MADV_HUGEPAGE)
    begin = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _HUGE
    return memoryview(memory)[begin : begin + -(-size // ALIGN) * ALIGN]


def _is_zero(part: memoryview, zeros: memoryview) -> bool:
    """Whether all bytes are zero; looks at both ends first, as real data nearly always ends the question there."""
    if any(part[:64]) or any(part[-64:]):
        return False
    # Comparing bytes is one memcmp, comparing memoryviews is a loop over items.
    return part.tobytes() == zeros[: len(part)].tobytes()
