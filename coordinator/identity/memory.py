"""Values remembered for a short time, in bounded number; and asking once for all who ask at the same time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Memory(Generic[T]):
    """`get` gives what `put` left less than `seconds` ago."""

    def __init__(self, seconds: float, size: int = 4096) -> None:
        self._seconds = seconds
        self._size = size
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def get(self, key: str) -> T | None:
        found = self._values.get(key)
        if found is None or found[0] <= time.monotonic():
            return None
        return found[1]

    def is_aging(self, key: str) -> bool:
        """Whether less than half of its time is left: who renews it now lets nobody wait later."""
        found = self._values.get(key)
        return found is None or found[0] - time.monotonic() < self._seconds / 2

    def put(self, key: str, value: T) -> None:
        self._values[key] = (time.monotonic() + self._seconds, value)
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def drop(self, key: str) -> None:
        self._values.pop(key, None)

    def clear(self) -> None:
        self._values.clear()


class Together(Generic[T]):
    """Those who ask for the same at the same time share one attempt, and what it ends with."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[T]] = {}

    async def ask(self, key: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome. A caller who is cancelled leaves the attempt to the others."""
        return await asyncio.shield(self.begin(key, attempt))

    def begin(self, key: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The attempt under way, or a new one. Nobody need wait for it."""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.ensure_future(attempt())
            running.add_done_callback(lambda done: self._ended(key, done))
        return running

    def clear(self) -> None:
        """Who asks from now on gets an attempt that begins from now on."""
        self._running = {}

    def _ended(self, key: str, done: asyncio.Task[T]) -> None:
        if self._running.get(key) is done:
            del self._running[key]
        if not done.cancelled():
            done.exception()  # it has been told to those who waited, if any did
