"""Who waits for an operation: for its end, or for its next progress."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from coordinator.state.operations import Operation


@dataclass(slots=True)
class _Watched:
    seq: int = 0
    progress: dict[str, Any] | None = None
    ended: asyncio.Future[Operation] | None = None
    waiting: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Watchers:
    """Kept in memory only; what must last is in the operation's row."""

    def __init__(self) -> None:
        self._by_id: dict[str, _Watched] = {}

    def progress(self, operation_id: str, progress: Mapping[str, Any]) -> None:
        watched = self._by_id.setdefault(operation_id, _Watched())
        watched.seq += 1
        watched.progress = dict(progress)
        watched.changed.set()
        watched.changed = asyncio.Event()

    def stir(self, operation_id: str) -> None:
        """Its row has changed elsewhere: those who wait look at it again."""
        watched = self._by_id.get(operation_id)
        if watched is not None:
            watched.changed.set()
            watched.changed = asyncio.Event()

    def watched(self, operation_id: str) -> bool:
        """Whether anybody waits for its end."""
        found = self._by_id.get(operation_id)
        return found is not None and found.ended is not None

    def latest(self, operation_id: str) -> tuple[int, dict[str, Any] | None]:
        """The number of the last progress, and the progress itself."""
        watched = self._by_id.get(operation_id)
        return (watched.seq, watched.progress) if watched else (0, None)

    async def change(self, operation_id: str, after: int, timeout: float) -> None:
        """Return at the first progress past `after`, at the end, or after `timeout` seconds."""
        with self.waits(operation_id):
            watched = self._by_id[operation_id]
            if watched.seq > after:
                return
            try:
                await asyncio.wait_for(watched.changed.wait(), timeout)
            except TimeoutError:
                return

    @contextmanager
    def waits(self, operation_id: str) -> Iterator[None]:
        """Somebody waits meanwhile; what only those who wait need goes with the last of them."""
        watched = self._by_id.setdefault(operation_id, _Watched())
        watched.waiting += 1
        try:
            yield
        finally:
            watched.waiting -= 1
            if self._by_id.get(operation_id) is watched:
                self._tidy(operation_id, watched)

    def left(self, operation_id: str) -> None:
        """It is not worked on here any more: another coordinator tells of its progress, if any does."""
        watched = self._by_id.get(operation_id)
        if watched is not None:
            watched.seq, watched.progress = 0, None
            self._tidy(operation_id, watched)

    def _tidy(self, operation_id: str, watched: _Watched) -> None:
        if not watched.waiting and watched.progress is None:
            del self._by_id[operation_id]

    def ended(self, operation_id: str) -> asyncio.Future[Operation]:
        """A future for the end, while the caller `waits`; never cancel it, others may share it."""
        watched = self._by_id.setdefault(operation_id, _Watched())
        if watched.ended is None:
            watched.ended = asyncio.get_running_loop().create_future()
        return watched.ended

    def end(self, operation: Operation) -> None:
        """Tell all who wait; also by whoever finds that it had ended before they came."""
        watched = self._by_id.pop(operation.id, None)
        if watched is None:
            return
        if watched.ended is not None and not watched.ended.done():
            watched.ended.set_result(operation)
        watched.changed.set()
