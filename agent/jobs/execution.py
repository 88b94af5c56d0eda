"""Running one job from its turn to its written end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.base.errors import BrickyardError, Temporary
from agent.base.faults import declare, fault_point
from agent.base.log import bound, get_logger
from agent.base.metrics import registry
from agent.jobs import records
from agent.jobs.entry import Entry
from agent.jobs.errors import JobDefect, JournalUnavailable, SwitchUnclear
from agent.jobs.gates import Gates
from agent.jobs.journal import Journal
from agent.jobs.kinds import Checkpoint, Context
from agent.wire.errors import JobFenced
from agent.wire.jobs import JobState, Progress, Wire

if TYPE_CHECKING:
    from agent.jobs.services import Services

declare(
    "agent.job.started", "agent.job.checkpointed", "agent.job.effect-done", "agent.job.abandoned", "agent.job.finished"
)

log = get_logger(__name__)
Outcome = tuple[JobState, dict[str, Any] | None, BrickyardError | None]
_TELL_EVERY_S = 0.5
_WRITE_EVERY_S = 1.0
_JOURNAL_RETRY_S = 2.0
_ENDS = ("done", "failed", "cancelled", "fenced")
_ended_jobs = registry.counter("brickyard_agent_jobs_ended", "Jobs that ended, by kind and state", kind=32, state=_ENDS)
_seconds = registry.histogram("brickyard_agent_job_seconds", "Seconds from a job's turn to its end", kind=32)


def fenced(entry: Entry, reason: str = "its coordinator was not heard in time") -> Outcome:
    """Another host may work on it by now: nothing more is touched, not even what was left half made."""
    return "fenced", None, JobFenced(key=entry.key, reason=reason)


def _done(result: Wire | None) -> Outcome:
    return "done", result.model_dump(mode="json") if result is not None else {}, None


class Execution:
    """Drives entries; `ended` is called once for each that has reached its end."""

    def __init__(self, journal: Journal, services: Services, gates: Gates, ended: Callable[[Entry], None]) -> None:
        self._journal = journal
        self._services = services
        self._gates = gates
        self._ended = ended
        self._changed: dict[str, Entry] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last_write = 0.0
        self._writes: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    async def drive(self, entry: Entry) -> None:
        """Wait for the job's turn, run it, write its end. Cancelled without a wish for it: stays resumable."""
        operation, step, _ = entry.key.split("/")
        with bound(request_id=entry.record.request_id or None, operation=operation, job=entry.key):
            try:
                state, result, error = await self._ended_or_cancelled(entry)
            except asyncio.CancelledError:
                if not entry.fenced:
                    log.info("job handed back, to be resumed", step=step)
                    raise
                state, result, error = fenced(entry)
            await self.end(entry, state, result, error)

    async def end(
        self, entry: Entry, state: JobState, result: dict[str, Any] | None, error: BrickyardError | None
    ) -> None:
        """Write the end and tell it; keeps trying while the journal can not be written, as the work is done."""
        entry.ending = True
        self._changed.pop(entry.key, None)
        ended = entry.ended(state, result, error)
        while True:
            try:
                await self._journal.write(partial(records.finish, ended=ended))
                break
            except JournalUnavailable as failure:
                log.error("the end of a job could not be written; trying again", job=entry.key, reason=str(failure))
                if await self._stopped_within(_JOURNAL_RETRY_S):
                    return
        seconds = round(time.monotonic() - entry.began, 3) if entry.began else 0.0
        _ended_jobs.inc(kind=entry.record.kind, state=state)
        _seconds.observe(seconds, kind=entry.record.kind)
        entry.close(replace(ended, epoch=entry.record.epoch))
        fault_point("agent.job.finished")
        log.info("job ended", job=entry.key, kind=entry.record.kind, state=state, seconds=seconds)
        self._ended(entry)

    async def stop(self) -> None:
        """End timers and wait for writes of progress under way."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._writes:
            await asyncio.wait(self._writes)

    async def _ended_or_cancelled(self, entry: Entry) -> Outcome:
        """How it ends, also where it is cancelled on its way. A lease may still run out while that is cleared away."""
        try:
            return await self._outcome(entry)
        except asyncio.CancelledError:
            if entry.fenced or not entry.cancel.is_set():
                raise
            return await self._given_up(entry, None)

    async def _outcome(self, entry: Entry) -> Outcome:
        kind = entry.kind
        assert kind is not None
        if entry.fenced:
            return fenced(entry)
        if entry.cancel.is_set():
            return await self._given_up(entry, None)
        try:
            async with self._gates.hold(kind.needs(entry.args), kind.lane) as lock_fd:
                entry.started, entry.began = True, time.monotonic()
                entry.move("running")
                fault_point("agent.job.started")
                result = await kind.run(self._context(entry, lock_fd), entry.args)
                entry.ending = True  # what is done is done: from here a cancel comes too late
                fault_point("agent.job.effect-done")
                return _done(result)
        except BrickyardError as error:
            log.warning("job failed", job=entry.key, kind=kind.name, code=error.code, reason=str(error))
            failure: BrickyardError = error
        except Exception as error:
            log.exception("job met a defect", job=entry.key, kind=kind.name)
            failure = JobDefect(key=entry.key, reason=f"{type(error).__name__}: {error}")
        if entry.fenced:
            return fenced(entry)
        if entry.cancel.is_set():
            return await self._given_up(entry, None)
        if isinstance(failure, Temporary):
            return "failed", None, failure
        return await self._given_up(entry, failure)

    async def _given_up(self, entry: Entry, failure: BrickyardError | None) -> Outcome:
        """Remove what is half made, unless it is too late for that; `failure` None: the job is not wanted any more.

        What could not be removed is told in the log and left to the undo of the operation.
        """
        kind = entry.kind
        end: Outcome = ("cancelled", None, None) if failure is None else ("failed", None, failure)
        if kind is None or not entry.may_have_left_something:
            return end
        try:
            async with self._gates.hold(kind.needs(entry.args), "quick") as lock_fd:
                result = await kind.abandon(self._context(entry, lock_fd), entry.args)
                fault_point("agent.job.abandoned")
        except SwitchUnclear as unclear:
            return "failed", None, unclear
        except Exception as error:  # noqa: BLE001
            log.warning("what a job left half made could not be removed", job=entry.key, reason=str(error))
        else:
            if result is not None:
                return _done(result)
        return end

    def _context(self, entry: Entry, lock_fd: int | None) -> Context:
        return Context(
            key=entry.key,
            services=self._services,
            report=partial(self._report, entry),
            save=partial(self._save, entry),
            secrets=entry.secrets,
            checkpoint=entry.record.checkpoint,
            cancel=entry.cancel,
            lock_fd=lock_fd,
        )

    async def _save(self, entry: Entry, checkpoint: Checkpoint) -> None:
        await self._journal.write(partial(records.note_checkpoint, key=entry.key, checkpoint=checkpoint))
        entry.record = replace(entry.record, checkpoint=checkpoint)
        fault_point("agent.job.checkpointed")

    def _report(self, entry: Entry, progress: Progress) -> None:
        """Keep the newest progress; it is told twice a second and written once a second."""
        if entry.ending:
            return
        entry.progress = progress
        self._changed[entry.key] = entry
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TELL_EVERY_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        changed = [entry for entry in self._changed.values() if not entry.ending]
        for entry in changed:
            entry.tell()
        now = time.monotonic()
        if now - self._last_write < _WRITE_EVERY_S:
            return  # they stay among the changed; the next report arms the timer again
        self._last_write = now
        self._changed.clear()
        notes = [
            (entry.key, entry.record.seq, entry.progress.model_dump(mode="json") if entry.progress else None)
            for entry in changed
        ]
        task = asyncio.create_task(self._note(notes))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _note(self, notes: list[tuple[str, int, dict[str, Any] | None]]) -> None:
        try:
            await self._journal.write(partial(records.note_progress, notes=notes))
        except JournalUnavailable as failure:
            log.warning("progress could not be written", reason=str(failure))

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return False
        return True
