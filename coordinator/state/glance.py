"""Reads of a few rows by key, taken together: a thread, a transaction and a wake-up for all that wait at once.

Handing one such read to a thread of its own and back costs more than the read: what arrives while the event loop goes
through what it has received is run by one thread in one transaction, begun after the last of them was asked for.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from coordinator.state.writer import Call, deliver

T = TypeVar("T")
Read = Callable[[Connection], Any]


class Source(Protocol):
    """Where it is read from, blocking."""

    def read_together(self, fns: list[Read]) -> list[tuple[Any, Exception | None]]: ...


class Glances:
    """`await read(fn)` from any event loop; `close()` when nothing more will come: it finishes what is queued.

    At most `together` share a transaction, in up to `threads` threads.
    """

    def __init__(self, source: Source, *, threads: int, together: int) -> None:
        self._source, self._size, self._together = source, threads, together
        self._queue: deque[Call] = deque()
        self._lock = threading.Lock()
        self._working = 0
        self._sending: asyncio.AbstractEventLoop | None = None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="db-glance")

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """What `fn` returned."""
        loop = asyncio.get_running_loop()
        call = Call(fn, loop, loop.create_future())
        self._queue.append(call)
        if self._sending is not loop:
            self._sending = loop
            loop.call_soon(self._send)
        result: T = await call.future
        return result

    def close(self) -> None:
        self._threads.shutdown()

    def _send(self) -> None:
        """All that has been received by now is queued: start threads for it."""
        self._sending = None
        with self._lock:
            wanted = min(self._size - self._working, -(-len(self._queue) // self._together))
            self._working += wanted
        for _ in range(wanted):
            self._threads.submit(self._work)

    def _work(self) -> None:
        while True:
            with self._lock:
                batch = [self._queue.popleft() for _ in range(min(self._together, len(self._queue)))]
                if not batch:
                    self._working -= 1
                    return
            try:
                outcomes = self._source.read_together([call.fn for call in batch])
            except Exception as failure:  # noqa: BLE001 - it belongs to the callers
                outcomes = [(None, failure)] * len(batch)
            for call, (value, error) in zip(batch, outcomes, strict=True):
                call.value, call.error = value, error
            for loop in {call.loop for call in batch}:
                with suppress(RuntimeError):  # the loop may be gone when the process ends in a hurry
                    loop.call_soon_threadsafe(deliver, [call for call in batch if call.loop is loop])
