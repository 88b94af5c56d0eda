"""A rate limit that holds over all workers of one copy."""

from __future__ import annotations

import threading
import time

_CREDIT_S = 0.1


class Throttle:
    """Each worker reserves its bytes and waits until they may have passed; a stall is made up for 0.1 s at most."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def wait(self, amount: int, stop: threading.Event) -> bool:
        """Wait until `amount` bytes fit under the rate; false when `stop` was set meanwhile."""
        if not self._rate:
            return not stop.is_set()
        with self._lock:
            begin = max(self._free_at, time.monotonic() - _CREDIT_S)
            self._free_at = begin + amount / self._rate
            until = self._free_at
        return not stop.wait(max(0.0, until - time.monotonic()))
