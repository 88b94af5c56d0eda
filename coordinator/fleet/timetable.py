"""When which host is to be polled, and how many at once: the same few objects for ten hosts and for ten thousand."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable


class Timetable:
    """Names and when each is due (monotonic seconds); the one that is due longest comes first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._earlier = asyncio.Event()

    def __contains__(self, name: object) -> bool:
        return name in self._due

    def put(self, name: str, due: float) -> None:
        """Note it, in place of what was noted before."""
        self._due[name] = due
        heapq.heappush(self._heap, (due, name))
        if self._heap[0][1] == name:
            self._earlier.set()
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(when, one) for one, when in self._due.items()]
            heapq.heapify(self._heap)

    def drop(self, name: str) -> None:
        self._due.pop(name, None)

    async def next(self) -> tuple[str, float]:
        """Wait until something is due; it is taken off the table."""
        while True:
            self._earlier.clear()
            left = None
            while self._heap:
                due, name = self._heap[0]
                if self._due.get(name) != due:
                    heapq.heappop(self._heap)
                    continue
                left = due - self._clock()
                if left <= 0:
                    heapq.heappop(self._heap)
                    del self._due[name]
                    return name, due
                break
            try:
                await asyncio.wait_for(self._earlier.wait(), left)
            except TimeoutError:
                continue


class Places:
    """`at_once` may be at work. Who waits for a host longer than `patience_s` counts no more, as long as fewer than
    `most` are at work in all: hosts that hang must not hold up those that answer.
    """

    def __init__(self, at_once: int, most: int, patience_s: float) -> None:
        self._at_once, self._most, self.patience_s = at_once, most, patience_s
        self.counted = self.taken = 0
        self.changed = asyncio.Event()

    async def take(self, waiting: Callable[[], float]) -> Place:
        """Wait for a place; `leave()` it at the end. `waiting` tells for how many seconds an answer is waited for."""
        while self.counted >= self._at_once or self.taken >= self._most:
            self.changed.clear()
            await self.changed.wait()
        self.counted += 1
        self.taken += 1
        return Place(self, waiting)


class Place:
    """One of `Places`."""

    __slots__ = ("_counted", "_places", "_timer", "_waiting")

    def __init__(self, places: Places, waiting: Callable[[], float]) -> None:
        self._places, self._waiting, self._counted = places, waiting, True
        self._timer = self._armed()

    def _armed(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._places.patience_s, self._look)

    def _look(self) -> None:
        # A loop that is late itself has not listened to the host: more at once would make it later still.
        late = asyncio.get_running_loop().time() - self._timer.when()
        if late < self._places.patience_s / 4 and self._waiting() >= self._places.patience_s / 2:
            self._count_no_more()
        else:
            self._timer = self._armed()

    def _count_no_more(self) -> None:
        if self._counted:
            self._counted = False
            self._places.counted -= 1
            self._places.changed.set()

    def leave(self) -> None:
        self._timer.cancel()
        self._count_no_more()
        self._places.taken -= 1
        self._places.changed.set()
