"""Progress of work that tells only how far it is: rate and time left over a short window."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from agent.copying.model import CopyProgress

Report = Callable[[CopyProgress], None]
_WINDOW_S = 5.0
_EVERY_S = 0.2


class Meter:
    """Turns `at(done)` into reports of bytes, rate and seconds left, five a second at most."""

    def __init__(self, phase: str, total: int, report: Report) -> None:
        self._phase, self.total, self._report = phase, total, report
        self._seen: deque[tuple[float, int]] = deque()
        self._last = 0.0

    def at(self, done: int, *, final: bool = False) -> None:
        """Say that `done` bytes are through; `final` reports in any case."""
        now = time.monotonic()
        if not final and now - self._last < _EVERY_S:
            return
        self._last = now
        self._seen.append((now, done))
        while now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        left = (self.total - done) / rate if rate > 0 else None
        self._report(CopyProgress(self._phase, done, self.total, rate, left))
