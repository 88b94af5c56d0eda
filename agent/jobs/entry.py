"""A job that this process has in hand: its record, what changed since, and who waits for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.base.errors import BrickyardError
from agent.jobs.kinds import Kind
from agent.jobs.records import Record
from agent.wire.jobs import JobState, JobStatus, Progress, WireSecret


@dataclass(slots=True, eq=False)
class Entry:
    """`record.seq` rises with every change that is told to waiters."""

    record: Record
    kind: Kind | None
    args: Any
    secrets: Mapping[str, WireSecret] = field(default_factory=dict, repr=False)
    resumed: bool = False
    started: bool = False
    ending: bool = False
    fenced: bool = False
    lease_until: float = 0.0
    progress: Progress | None = None
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    began: float = 0.0
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def terminal(self) -> bool:
        return self.record.terminal

    @property
    def may_have_left_something(self) -> bool:
        return self.started or self.resumed

    def status(self) -> JobStatus:
        record = self.record
        status = record.status()
        if self.progress is not None and not record.terminal:
            return status.model_copy(update={"progress": self.progress})
        return status

    def move(self, state: JobState) -> None:
        """Another state, without an end; in memory."""
        self.record = replace(self.record, state=state)
        self.tell()

    def tell(self) -> None:
        """Raise `seq` and wake who waits."""
        self.record = replace(self.record, seq=self.record.seq + 1)
        self._wake()

    def ended(self, state: JobState, result: dict[str, Any] | None, error: BrickyardError | None) -> Record:
        """The record as it shall be written; nobody is told before it is."""
        record = self.record
        last = self.progress.model_dump(mode="json") if self.progress is not None else record.progress
        return replace(
            record,
            state=state,
            seq=record.seq + 1,
            progress=last,
            checkpoint=None,
            result=result,
            error=error.to_body() if error is not None else None,
        )

    def close(self, record: Record) -> None:
        """The end is on disk: forget the secrets and tell it."""
        self.record, self.secrets, self.task = record, {}, None
        self._wake()

    async def changed(self, after: int, timeout: float) -> None:
        """Return when `seq` is above `after`, when the job has ended, or when `timeout` (seconds) is over."""
        if self.terminal or self.record.seq > after:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def release(self) -> None:
        """Nothing more comes from this process: let who waits ask elsewhere."""
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
