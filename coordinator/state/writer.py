"""One thread that writes: whatever arrives while the disk syncs shares the next transaction.

Callers of the API come first. What runs in the background is patient: of it a few go along with each transaction, and
some more when nobody else waits (a caller who comes then should not wait long).

Each function runs in a savepoint of its own, so that one which raises takes nothing of its neighbours with it. What
was asked for has been synced to disk when its caller hears of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from coordinator.state.errors import CommitInDoubt, SessionLost
from coordinator.state.together import Need

T = TypeVar("T")
Write = Callable[[Connection], Any]
_MAX_BATCH = 64
_PATIENT_ALONG, _PATIENT_ALONE = 4, 16


class Target(Protocol):
    """Where it is written to, blocking."""

    def write_now(self, fn: Callable[[Connection], T]) -> T: ...
    def write_together(self, fns: list[Write], needs: list[Need]) -> list[tuple[Any, Exception | None]]: ...


@dataclass(slots=True, eq=False)
class Call:
    """One write that somebody waits for."""

    fn: Write
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    need: Need | None = None
    value: Any = None
    error: BaseException | None = None


class Writer:
    """`await write(fn)` from any event loop; `close()` when nothing more will come: it finishes what is queued."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._queue: deque[Call] = deque()
        self._patient: deque[Call] = deque()
        self._lock = threading.Lock()
        self._working = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="db-write")

    async def write(
        self, fn: Callable[[Connection], T], *, patient: bool = False, together: str | None = None,
        need: Need | None = None
    ) -> T:  # fmt: skip
        """What `fn` returned, once it is on disk. A caller that is cancelled leaves the write to be done.

        All go together here.
        """
        loop = asyncio.get_running_loop()
        call = Call(fn, loop, loop.create_future())
        with self._lock:
            (self._patient if patient else self._queue).append(call)
            start, self._working = not self._working, True
        if start:
            self._thread.submit(self._work)
        result: T = await call.future
        return result

    def close(self) -> None:
        self._thread.shutdown()

    def _work(self) -> None:
        while True:
            with self._lock:
                batch = [self._queue.popleft() for _ in range(min(_MAX_BATCH, len(self._queue)))]
                room = _PATIENT_ALONG if batch else _PATIENT_ALONE
                batch += [self._patient.popleft() for _ in range(min(room, len(self._patient)))]
                if not batch:
                    self._working = False
                    return
            for call in together(self._target, batch) if len(batch) > 1 else batch:
                alone(self._target, call)
            with suppress(RuntimeError):  # the loop may be gone when the process ends in a hurry
                batch[0].loop.call_soon_threadsafe(deliver, batch)


def together(target: Target, batch: list[Call]) -> list[Call]:
    """Do them in one transaction; returns those for which that was no answer, and which are to be tried alone."""
    try:
        needs = [call.need for call in batch if call.need is not None]
        outcomes = target.write_together([call.fn for call in batch], needs)
    except CommitInDoubt as doubt:
        for call in batch:
            call.error = doubt
        return [batch[number] for number in sorted(doubt.failed)]
    except BaseException:  # noqa: BLE001 - nothing was kept; each gets the error that is its own
        return batch
    left = []
    for call, (value, error) in zip(batch, outcomes, strict=True):
        if isinstance(error, (DBAPIError, SessionLost)):
            left.append(call)
        else:
            call.value, call.error = value, error
    return left


def alone(target: Target, call: Call) -> None:
    """Do it in a transaction of its own."""
    try:
        call.value, call.error = target.write_now(call.fn), None
    except BaseException as error:  # noqa: BLE001 - it belongs to the caller
        call.error = error


def deliver(batch: list[Call]) -> None:
    """Give each caller of the batch what became of it; on the callers' loop."""
    for call in batch:
        if call.future.done():
            continue
        if call.error is None:
            call.future.set_result(call.value)
        else:
            call.future.set_exception(call.error)
