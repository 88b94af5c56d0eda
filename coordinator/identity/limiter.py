"""Counting failed logins per user and address, in memory and bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from coordinator.identity.errors import TooManyFailures

_KEYS = 10_000


class Limiter:
    """An attempt counts as failed from its start until `succeeded`, so that many at once gain nothing."""

    def __init__(self, allowed: int, window: float, clock: Callable[[], float]) -> None:
        self._allowed = allowed
        self._window = window
        self._clock = clock
        self._attempts: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def attempt(self, user: str, address: str | None) -> None:
        """Begin an attempt; raises TooManyFailures (429, with the seconds to wait)."""
        key, now = (user, address or ""), self._clock()
        times = self._attempts.setdefault(key, deque())
        self._attempts.move_to_end(key)
        while times and times[0] <= now - self._window:
            times.popleft()
        if len(times) >= self._allowed:
            wait = max(1.0, times[0] + self._window - now)
            raise TooManyFailures(retry_after=wait, seconds=int(wait) + 1)
        times.append(now)
        while len(self._attempts) > _KEYS:
            self._attempts.popitem(last=False)

    def succeeded(self, user: str, address: str | None) -> None:
        """The attempt was right: forget it and the failures before it."""
        self._attempts.pop((user, address or ""), None)
