"""The durable job runner: accepted means written, the same key is one job, a lower epoch can do nothing.

Every unfinished job runs again after a restart, from its last checkpoint. The runner makes one try per job; trying
again after a Temporary error is the coordinator's decision, under the next attempt.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.base.faults import declare, fault_point
from agent.base.log import get_logger
from agent.jobs import leases, records
from agent.jobs.entry import Entry
from agent.jobs.errors import AgentStopping, BadArguments, SecretMissing, UnknownJob, UnknownKind
from agent.jobs.execution import Execution, fenced
from agent.jobs.gates import Gates
from agent.jobs.journal import Journal
from agent.jobs.kinds import Kind, Needs
from agent.jobs.records import Record
from agent.wire.jobs import JobRequest, JobStatus, WireSecret, job_args

if TYPE_CHECKING:
    from agent.jobs.services import Services

declare("agent.job.journaled", "agent.job.cancel-journaled", "agent.job.acknowledged", "agent.job.resumed")

log = get_logger(__name__)
_KEEP_ENDED = 2048
_PRUNE_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """`quick` and `heavy` jobs run at once; `lock_deadline_s` bounds the wait for tools of an earlier life."""

    lock_dir: Path
    quick: int = 32
    heavy: int = 2
    lock_deadline_s: float = 60.0
    boot_id: str = ""


class Runner:
    """`await start()` resumes what was left; all calls belong to one event loop; `await stop(seconds)` at the end."""

    def __init__(self, journal: Journal, kinds: Mapping[str, Kind], services: Services, options: RunnerOptions) -> None:
        self._journal = journal
        self._kinds = kinds
        self._options = options
        self._entries: dict[str, Entry] = {}
        self._ended: deque[str] = deque()
        self._stopping = self._stopped = False
        self._first_seq = 0
        self._pruned = 0.0
        lanes: dict[Any, int] = {"quick": options.quick, "heavy": options.heavy}
        self._gates = Gates(options.lock_dir, lanes, options.lock_deadline_s)
        self._execution = Execution(journal, services, self._gates, self._note_end)
        self._leases = leases.Leases()

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted(self._kinds))

    def hold(self, needs: Needs) -> AbstractAsyncContextManager[int | None]:
        """The resources as a quick job would hold them, for work of the agent's own."""
        return self._gates.hold(needs, "quick")

    @property
    def live(self) -> int:
        """Jobs without an end."""
        return sum(1 for entry in list(self._entries.values()) if not entry.terminal)

    @property
    def oldest(self) -> float:
        """When the oldest job without an end was accepted (epoch seconds); now when there is none."""
        return min(
            (entry.record.created_at for entry in self._entries.values() if not entry.terminal), default=time.time()
        )

    async def start(self) -> int:
        """Take up every unfinished job of the journal; how many there were."""
        starts = await self._journal.write(records.count_start)
        # Above anything that an earlier start has given out, though progress is not written at each change.
        self._first_seq = starts << 32
        await self._prune()
        left = await self._journal.read(records.unfinished)
        for record in left:
            await self._resume(replace(record, seq=self._first_seq))
        return len(left)

    async def accept(self, request: JobRequest) -> JobStatus:
        """Write the job down and begin it; a known key is the same job and gives its status.

        StaleEpoch, Tombstoned, KeyReused (409); UnknownKind, BadArguments, SecretMissing (400);
        AgentStopping, JournalUnavailable, JobTooLate (503).
        """
        if self._stopping:
            raise AgentStopping()
        kind = self._kind(request.kind, request.version)
        args = _typed(request.kind, request.args)
        leases.check(request)
        missing = kind.secrets(args) - request.secrets.keys()
        if missing:
            raise SecretMissing(kind=request.kind, names=", ".join(sorted(missing)))
        new = records.fresh(request, self._first_seq, self._options.boot_id)
        await self._prune_in_time()
        known = await self._journal.write(partial(records.accept, record=new))
        fault_point("agent.job.journaled")
        entry = self._entries.get(request.key)
        if entry is not None:
            self._leases.extend(entry)
            entry.record = replace(entry.record, epoch=max(entry.record.epoch, request.epoch))
            if entry.record.state == "needs-secret" and not self._stopping:
                self._begin(entry, request.secrets)
            return entry.status()
        if known.terminal:
            return known.status()
        entry = Entry(known, kind, args)
        self._entries[request.key] = entry
        self._leases.extend(entry)
        if not self._stopping:
            self._begin(entry, request.secrets)
        return entry.status()

    async def status(self, key: str) -> JobStatus:
        """UnknownJob when there is no such job; a key cancelled before its POST came is `cancelled`."""
        entry = self._entries.get(key)
        if entry is not None:
            self._leases.extend(entry)
            return entry.status()
        record = await self._journal.read(partial(records.find, key=key))
        if record is not None:
            if not record.terminal and not self._stopping and key not in self._entries:
                # Its POST was written, but who posted it was gone before it began.
                await self._resume(replace(record, seq=self._first_seq))
            entry = self._entries.get(key)
            return entry.status() if entry is not None else record.status()
        dead = await self._journal.read(partial(records.buried, key=key))
        if dead is not None and dead[1] == "cancelled":
            return _never_begun(key, dead[0])
        raise UnknownJob(noun="job", id=key, key=key)

    async def wait_for_change(self, key: str, after: int, timeout: float) -> JobStatus:
        """The status once its `seq` is above `after` or it has ended, at the latest after `timeout` seconds."""
        entry = self._entries.get(key)
        if entry is not None:
            self._leases.extend(entry)
            await entry.changed(after, timeout)
            return entry.status()
        return await self.status(key)

    async def wait_for_end(self, key: str, timeout: float) -> JobStatus:
        """The status once the job has ended or needs something from outside, at the latest after `timeout`."""
        deadline = time.monotonic() + timeout
        status = await self.status(key)
        while not status.terminal and status.state != "needs-secret":
            left = deadline - time.monotonic()
            if left <= 0 or self._stopped:
                break
            status = await self.wait_for_change(key, status.seq, left)
        return status

    async def cancel(self, key: str, epoch: int) -> JobStatus:
        """Stop the job, for good; an unknown key gets a tombstone so that it never begins. StaleEpoch."""
        known = await self._journal.write(partial(records.cancel, key=key, epoch=epoch))
        fault_point("agent.job.cancel-journaled")
        entry = self._entries.get(key)
        if entry is None:
            return known.status() if known is not None else _never_begun(key, epoch)
        if not entry.terminal and not entry.ending and not entry.cancel.is_set():
            entry.cancel.set()
            if entry.task is not None:
                entry.task.cancel()
            elif not self._stopping:
                self._begin(entry, {})
        return entry.status()

    async def acknowledge(self, keys: Iterable[str]) -> list[str]:
        """Drop those of the jobs that have ended; returns their keys. Unknown ones are passed over."""
        wanted = list(keys)
        dropped = await self._journal.write(partial(records.acknowledge, keys=wanted))
        fault_point("agent.job.acknowledged")
        for key in dropped:
            self._entries.pop(key, None)
        await self._prune_in_time()
        return dropped

    async def listing(self) -> list[JobStatus]:
        """The newest thousand jobs."""
        rows = await self._journal.read(records.everything)
        return [self._entries[row.key].status() if row.key in self._entries else row.status() for row in rows]

    async def stop(self, grace_s: float) -> int:
        """Take no new jobs, let quick ones end for `grace_s` seconds, leave the rest to be resumed; how many."""
        self._stopping = True
        tasks = {entry.task: entry for entry in self._entries.values() if entry.task is not None}
        quick = [task for task, entry in tasks.items() if entry.kind is not None and entry.kind.lane == "quick"]
        if quick:
            await asyncio.wait(quick, timeout=grace_s)
        left = [task for task, entry in tasks.items() if not task.done() and not entry.ending]
        for task in left:
            task.cancel()
        running = [task for task in tasks if not task.done()]
        if running:
            await asyncio.wait(running, timeout=max(grace_s, 5.0))
        self._leases.stop()
        await self._execution.stop()
        self._stopped = True
        for entry in self._entries.values():
            entry.release()
        return len(left)

    async def _resume(self, record: Record) -> None:
        try:
            kind = self._kind(record.kind, record.version)
            args = _typed(record.kind, record.args)
        except (UnknownKind, BadArguments) as error:
            entry = Entry(record, None, None)
            self._entries[record.key] = entry
            await self._execution.end(entry, "failed", None, error)
            return
        entry = Entry(record, kind, args, resumed=True)
        if record.cancel_requested:
            entry.cancel.set()
        self._entries[record.key] = entry
        if record.lease_s is not None:
            await self._execution.end(entry, *fenced(entry, "the agent was started anew"))
            return
        fault_point("agent.job.resumed")
        if record.secret_names and not record.cancel_requested:
            entry.move("needs-secret")
            await self._journal.write(partial(records.note_waiting, key=record.key, seq=entry.record.seq))
            log.info("job waits for its secrets to be posted again", job=record.key)
            return
        self._begin(entry, {})

    def _begin(self, entry: Entry, secrets: Mapping[str, WireSecret]) -> None:
        entry.secrets = dict(secrets)
        entry.move("queued")
        entry.task = asyncio.create_task(self._execution.drive(entry))

    def _kind(self, name: str, version: int) -> Kind:
        kind = self._kinds.get(name)
        if kind is None or version not in kind.versions:
            raise UnknownKind(kind=name, version=version)
        return kind

    def _note_end(self, entry: Entry) -> None:
        """Keep the last ones in memory, as their coordinator asks for them at once; the rest is in the journal."""
        self._ended.append(entry.key)
        if len(self._ended) > _KEEP_ENDED:
            oldest = self._entries.get(self._ended.popleft())
            if oldest is not None and oldest.terminal:
                del self._entries[oldest.key]

    async def _prune_in_time(self) -> None:
        if time.monotonic() - self._pruned > _PRUNE_EVERY_S:
            await self._prune()

    async def _prune(self) -> None:
        self._pruned = time.monotonic()
        await self._journal.write(records.prune)


def _typed(kind: str, args: dict[str, Any]) -> Any:
    try:
        return job_args.validate_python({**args, "kind": kind})
    except ValidationError as failure:
        wrong = failure.errors(include_url=False, include_input=False, include_context=False)
        told = "; ".join(f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in wrong[:5])
        raise BadArguments(kind=kind, reason=told) from None


def _never_begun(key: str, epoch: int) -> JobStatus:
    return JobStatus(key=key, epoch=epoch, kind="", state="cancelled", seq=0)
