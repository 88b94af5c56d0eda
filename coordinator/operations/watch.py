"""Who waits for an operation: for its end, or for its next progress."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coordinator.state.operations import Operation


@dataclass(slots=True)
class _Watched:
    seq: int = 0
    progress: dict[str, Any] | None = None
    ended: asyncio.Future[Operation] | None = None
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
        watched = self._by_id.setdefault(operation_id, _Watched())
        if watched.seq > after:
            return
        try:
            await asyncio.wait_for(watched.changed.wait(), timeout)
        except TimeoutError:
            return

    def ended(self, operation_id: str) -> asyncio.Future[Operation]:
        """A future for the end; never cancel it, others may share it."""
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
