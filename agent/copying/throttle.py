"""A rate limit that holds over all workers of one copy, or over all copies that share it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

_CREDIT_S = 0.1


class Throttle:
    """Each worker reserves its bytes and waits until they may have passed; a stall is made up for 0.1 s at most.

    `shared` are limits of several copies together: who works has his part of each, and who ends gives it back.
    """

    def __init__(self, rate: int | None, shared: tuple[Throttle, ...] = ()) -> None:
        self.rate = rate
        self._shared = shared
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def wait(self, amount: int, stop: threading.Event) -> bool:
        """Wait until `amount` bytes fit under the rate; false when `stop` was set meanwhile."""
        return not stop.wait(self.delay(amount))

    def delay(self, amount: int) -> float:
        """Seconds until these bytes may pass; they are counted from now on."""
        until = max(one._reserved(amount) for one in (self, *self._shared))
        return max(0.0, until - time.monotonic())

    def _reserved(self, amount: int) -> float:
        """When these bytes may have passed."""
        if not self.rate:
            return 0.0
        with self._lock:
            begin = max(self._free_at, time.monotonic() - _CREDIT_S)
            self._free_at = begin + amount / self.rate
            return self._free_at


async def limited(blocks: AsyncIterator[bytes], throttle: Throttle) -> AsyncIterator[bytes]:
    """The same blocks, each when it may pass."""
    async for block in blocks:
        await asyncio.sleep(throttle.delay(len(block)))
        yield block
