"""Counting failed logins per user and address, and per address alone, in memory and bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from coordinator.identity.errors import TooManyFailures

_KEYS = 10_000
_USERS_PER_ADDRESS = 25
"""One address may fail this often as much as for one user: each check of a password costs time that all share."""


class Limiter:
    """An attempt counts as failed from its start until `succeeded`, so that many at once gain nothing."""

    def __init__(self, allowed: int, window: float, clock: Callable[[], float]) -> None:
        self._allowed = allowed
        self._window = window
        self._clock = clock
        self._attempts: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def attempt(self, user: str, address: str | None) -> None:
        """Begin an attempt; raises TooManyFailures (429, with the seconds to wait)."""
        now = self._clock()
        own, shared = self._recent((user, address or ""), now), self._recent(("", address or ""), now)
        for times, allowed in ((own, self._allowed), (shared, self._allowed * _USERS_PER_ADDRESS)):
            if len(times) >= allowed:
                wait = max(1.0, times[0] + self._window - now)
                raise TooManyFailures(retry_after=wait, seconds=int(wait) + 1)
        own.append(now)
        shared.append(now)

    def _recent(self, key: tuple[str, str], now: float) -> deque[float]:
        """Attempts within the window, the oldest first."""
        times = self._attempts.setdefault(key, deque())
        self._attempts.move_to_end(key)
        while len(self._attempts) > _KEYS:
            self._attempts.popitem(last=False)
        while times and times[0] <= now - self._window:
            times.popleft()
        return times

    def succeeded(self, user: str, address: str | None) -> None:
        """The attempt was right: forget it and the failures before it."""
        own = self._attempts.pop((user, address or ""), None)
        shared = self._attempts.get(("", address or ""))
        if own and shared:
            for _ in range(min(len(own), len(shared))):
                shared.pop()
