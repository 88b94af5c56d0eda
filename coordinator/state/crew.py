"""Several threads that write, each call in a transaction of its own: for a database that keeps writers apart itself.

Callers of the API come first; what runs in the background is patient, but every fourth turn is its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection

from coordinator.state.writer import Call, Target, deliver

T = TypeVar("T")
_PATIENT_TURN = 4
_KEPT_FREE = 2


class Crew:
    """`await write(fn)` from any event loop; `close()` when nothing more will come: it finishes what is queued."""

    def __init__(self, target: Target, size: int) -> None:
        self._target, self._size = target, size
        self._most_patient = max(1, size - _KEPT_FREE)
        self._queue: deque[Call] = deque()
        self._patient: deque[Call] = deque()
        self._lock = threading.Lock()
        self._working = self._at_patient = self._turn = 0
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="db-write")

    async def write(self, fn: Callable[[Connection], T], *, patient: bool = False) -> T:
        """What `fn` returned, once it is on disk. A caller that is cancelled leaves the write to be done."""
        loop = asyncio.get_running_loop()
        call = Call(fn, loop, loop.create_future())
        with self._lock:
            (self._patient if patient else self._queue).append(call)
            start = self._working < self._size
            self._working += start
        if start:
            self._threads.submit(self._work)
        result: T = await call.future
        return result

    def close(self) -> None:
        self._threads.shutdown()

    def _work(self) -> None:
        while True:
            with self._lock:
                call, patient = self._next()
                if call is None:
                    self._working -= 1
                    return
                self._at_patient += patient
            try:
                call.value = self._target.write_now(call.fn)
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                call.error = error
            with self._lock:
                self._at_patient -= patient
            with suppress(RuntimeError):  # the loop may be gone when the process ends in a hurry
                call.loop.call_soon_threadsafe(deliver, [call])

    def _next(self) -> tuple[Call | None, bool]:
        self._turn = (self._turn + 1) % _PATIENT_TURN
        may_patient = bool(self._patient) and self._at_patient < self._most_patient
        if may_patient and (self._turn == 0 or not self._queue):
            return self._patient.popleft(), True
        return (self._queue.popleft(), False) if self._queue else (None, False)
