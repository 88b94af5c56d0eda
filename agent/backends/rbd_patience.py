"""A question that a silent cluster may leave open: who asks waits a little, and gets what was known a while ago.

A poll of the host asks all its back ends within seconds; the tools of Ceph themselves wait for `deadline_s`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from agent.backends.rbd_errors import ClusterHangs

T = TypeVar("T")
_PATIENCE_S = 2.0


class Patient(Generic[T]):
    """One asking at a time, which goes on when nobody waits for it any more. Lives on one event loop."""

    def __init__(self, backend: str, ask: Callable[[], Awaitable[T]], keep_s: float) -> None:
        self._backend, self._ask, self._keep_s = backend, ask, keep_s
        self._task: asyncio.Task[T] | None = None
        self._begun = 0.0
        self._known: tuple[float, T] | None = None

    async def get(self) -> T:
        """The answer; one that is at most `keep_s` old where it takes long. What the asking raises, ClusterHangs."""
        if self._task is None:
            self._begun = time.monotonic()
            self._task = asyncio.create_task(self._asking())
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task = self._task
        await asyncio.wait({task}, timeout=max(0.0, self._begun + _PATIENCE_S - time.monotonic()))
        if task.done():
            return task.result()
        now = time.monotonic()
        if self._known is not None and now - self._known[0] <= self._keep_s:
            return self._known[1]
        raise ClusterHangs(backend=self._backend, seconds=round(now - self._begun, 1))

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _asking(self) -> T:
        try:
            answer = await self._ask()
        except BaseException:
            self._known = None
            raise
        finally:
            self._task = None
        self._known = (time.monotonic(), answer)
        return answer
