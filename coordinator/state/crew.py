"""Several threads that write: for a database that keeps writers apart itself.

Callers of the API come first; what runs in the background is patient, but every fourth turn is its own.

A call has a transaction of its own, unless it may share one: of those that name the same company one transaction is
under way at a time, and what comes meanwhile goes along with the next. So one commit serves many, and they do not
wait for each other's rows.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection

from coordinator.state.together import Need
from coordinator.state.writer import Call, Target, alone, deliver, together

T = TypeVar("T")
_PATIENT_TURN = 4
_KEPT_FREE = 2
_MOST_TOGETHER = 32


@dataclass(slots=True, eq=False)
class _Company:
    """Calls that may share a transaction; one that may not is alone in one without a name."""

    name: str | None
    patient: bool
    calls: deque[Call] = field(default_factory=deque)


class Crew:
    """`await write(fn)` from any event loop; `close()` when nothing more will come: it finishes what is queued."""

    def __init__(self, target: Target, size: int) -> None:
        self._target, self._size = target, size
        self._most_patient = max(1, size - _KEPT_FREE)
        self._queue: deque[_Company] = deque()
        self._patient: deque[_Company] = deque()
        self._companies: dict[tuple[str, bool], _Company] = {}
        self._lock = threading.Lock()
        self._working = self._at_patient = self._turn = 0
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="db-write")

    async def write(
        self, fn: Callable[[Connection], T], *, patient: bool = False, together: str | None = None,
        need: Need | None = None
    ) -> T:  # fmt: skip
        """What `fn` returned, once it is on disk. A caller that is cancelled leaves the write to be done."""
        loop = asyncio.get_running_loop()
        call = Call(fn, loop, loop.create_future(), need)
        with self._lock:
            more = self._more(self._joined(call, patient, together))
        self._start(more)
        result: T = await call.future
        return result

    def close(self) -> None:
        self._threads.shutdown()

    def _joined(self, call: Call, patient: bool, together: str | None) -> bool:
        """Whether there is something new in the queues: a company that waits there or is at work takes it along."""
        company = self._companies.get((together, patient)) if together is not None else None
        if company is not None:
            company.calls.append(call)
            return False
        company = _Company(together, patient, deque([call]))
        if together is not None:
            self._companies[together, patient] = company
        self._enqueue(company)
        return True

    def _enqueue(self, company: _Company) -> None:
        (self._patient if company.patient else self._queue).append(company)

    def _more(self, entered: int) -> int:
        """How many threads are to be started for so many new companies."""
        more = min(entered, self._size - self._working)
        self._working += more
        return more

    def _start(self, more: int) -> None:
        for _ in range(more):
            self._threads.submit(self._work)

    def _work(self) -> None:
        while True:
            with self._lock:
                company = self._next()
                if company is None:
                    self._working -= 1
                    return
                batch = [company.calls.popleft() for _ in range(min(_MOST_TOGETHER, len(company.calls)))]
                self._at_patient += company.patient
            left = self._done(batch, company.name is not None)
            with self._lock:
                self._at_patient -= company.patient
                for call in left:
                    self._enqueue(_Company(None, company.patient, deque([call])))
                if company.calls:
                    self._enqueue(company)
                elif company.name is not None:
                    del self._companies[company.name, company.patient]
                more = self._more(len(left))
            with suppress(RuntimeError):  # the loop may be gone when the process ends in a hurry
                answered = [call for call in batch if call not in left]
                batch[0].loop.call_soon_threadsafe(deliver, answered)
            with suppress(RuntimeError):  # when it closes, those at work do what is left
                self._start(more)

    def _done(self, batch: list[Call], named: bool) -> list[Call]:
        """What is left to be done alone: it may have to wait, and its company shall not."""
        if named:
            return together(self._target, batch)
        alone(self._target, batch[0])
        return []

    def _next(self) -> _Company | None:
        self._turn = (self._turn + 1) % _PATIENT_TURN
        may_patient = bool(self._patient) and self._at_patient < self._most_patient
        if may_patient and (self._turn == 0 or not self._queue):
            return self._patient.popleft()
        return self._queue.popleft() if self._queue else None
