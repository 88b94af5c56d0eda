"""Waiting on the event loop for what is committed, here or by another coordinator."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Bell:
    """`ring()` from any thread wakes all who wait. Rings tell that there is something, not what: look at the rows.

    Take `count` before looking, and wait for the one after it: what came in between is not missed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        with self._lock:
            self.count += 1
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            with suppress(RuntimeError):  # its loop may be closed already
                future.get_loop().call_soon_threadsafe(_wake, future)

    async def after(self, count: int, seconds: float) -> bool:
        """Wait until it has rung more often than `count`; False when it has not within so many seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self.count > count:
                return True
            self._waiting.add(future)
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiting.discard(future)
        return True


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
