"""The engine: owns operations by lease, runs each as one task, tells who waits, and lets go when it lost the lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from agent.base.errors import BrickyardError, NotFound
from agent.base.faults import declare, fault_point
from agent.base.log import bound, get_logger
from coordinator.operations import waits
from coordinator.operations.acknowledge import Acknowledger
from coordinator.operations.advance import Next, StepRefused, advance, jobs_of
from coordinator.operations.draining import Drains
from coordinator.operations.errors import NotCancellable, NotRetryable, WorkUnknown
from coordinator.operations.jobs import AWAY_DEADLINE_S, MEMBER_LEASE_S, Agents, Conversation
from coordinator.operations.leases import Leases
from coordinator.operations.progress import SharedProgress
from coordinator.operations.run import Run
from coordinator.operations.slots import Slot
from coordinator.operations.watch import Watchers
from coordinator.operations.workflow import Workflow, Workflows
from coordinator.state import news, operations
from coordinator.state.database import Database
from coordinator.state.doubt import was_kept
from coordinator.state.errors import CommitInDoubt, DatabaseUnavailable, LeaseLost
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.together import hopeful

T = TypeVar("T")
log = get_logger(__name__)
_LOOK_S = 2.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
declare("coordinator.accepted")


class Engine:
    """Runs workflows. `exclusive` says that no other coordinator can hold this database (SQLite)."""

    def __init__(
        self,
        db: Database,
        agents: Agents,
        workflows: Workflows,
        *,
        owner: str,
        exclusive: bool,
        parallel: int = 64,
        away_deadline_s: float = AWAY_DEADLINE_S,
        member_lease_s: float = MEMBER_LEASE_S,
    ) -> None:
        self.db = db
        self.agents = agents
        self.workflows = workflows
        self.owner = owner
        self.watchers = Watchers()
        self.drains = Drains(db)
        self._exclusive = exclusive
        self._leases = Leases(db, self, workflows.known, alone=exclusive)
        self._away_deadline_s, self._member_lease_s = away_deadline_s, member_lease_s
        self._slots = asyncio.Semaphore(parallel)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._epochs: dict[str, int] = {}
        self._cancels: dict[str, asyncio.Event] = {}
        self._acknowledger = Acknowledger(agents)
        self._progress = SharedProgress(db, self.watchers, self._epochs, owner)
        self._background: list[asyncio.Task[None]] = []

    def wait_for_hosts(self, seconds: float) -> None:
        """How long operations that begin from now on wait for a host that is away."""
        self._away_deadline_s = seconds

    async def begin(self) -> None:
        """Take over what a former owner left, then keep the leases."""
        await self._leases.begin()
        self._background = [asyncio.create_task(self._acknowledger.run())]
        if not self._exclusive:
            self._background.append(asyncio.create_task(self._progress.run()))
            loop = asyncio.get_running_loop()
            heard = self.watchers.stir
            self.db.news.follow(news.PROGRESS, lambda key: loop.call_soon_threadsafe(heard, key))

    async def close(self, grace_s: float = 5.0) -> None:
        """Let running steps end for a while; what is left is resumed by its next owner."""
        tasks = [*self._tasks.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in [*self._tasks.values(), *self._background]:
            task.cancel()
        await asyncio.gather(*tasks, *self._background, return_exceptions=True)
        await self.drains.close()
        await self._leases.close()
        await self._acknowledger.flush()

    async def submit(
        self, fn: Callable[[Connection], tuple[Operation, T]], *, together: str | None = None
    ) -> tuple[Operation, T]:
        """Run an accepting transaction; when it has committed, its operation starts (`together`: `Database.write`).

        What can be done of it at once is done in the same transaction; where that is refused, it is only accepted.
        """
        made: list[tuple[Operation, T, Next | None]] = []

        def remembered(conn: Connection, *, only: bool = False) -> tuple[Operation, T, Next | None]:
            operation, value = fn(conn)
            begun = None
            if not only and hopeful(conn) and (workflow := self.workflows.of(operation)).at_once(operation):
                operation, begun = advance(conn, workflow, operation, hopeful=True)
            made[:] = [(operation, value, begun)]
            return made[0]

        try:
            try:
                operation, value, begun = await self.db.write(remembered, together=together)
            except StepRefused:
                operation, value, begun = await self.db.write(partial(remembered, only=True))
        except CommitInDoubt as doubt:
            operation, value, begun = made[0]
            known = operation.id
            if not await was_kept(self.db, doubt, lambda conn: operations.get(conn, known) is not None):
                raise DatabaseUnavailable(reason=str(doubt.context["reason"])) from doubt
        fault_point("coordinator.accepted")
        self.start(operation, begun)
        return operation, value

    async def submit_perhaps(self, fn: Callable[[Connection], Operation | None]) -> None:
        """The same for a transaction that may have done all by itself."""
        operation = await self.db.write(fn)
        if operation is not None:
            fault_point("coordinator.accepted")
            self.start(operation)

    def start(self, operation: Operation, begun: Next | None = None) -> None:
        """Run an operation that this coordinator owns; `begun` is what comes next, where that is known."""
        running = self._tasks.get(operation.id)
        if running is not None:
            if self._epochs.get(operation.id, 0) < operation.epoch:
                running.add_done_callback(lambda _: self.start(operation))
            return
        cancel = self._cancels[operation.id] = asyncio.Event()
        if operation.cancel_requested:
            cancel.set()
        task = asyncio.create_task(self._run(operation, begun, cancel), name=f"operation-{operation.id}")
        self._tasks[operation.id] = task
        self._epochs[operation.id] = operation.epoch
        self._leases.busy.set()
        task.add_done_callback(lambda _: self._forget(operation.id))

    async def wait(self, operation_id: str, timeout: float) -> Operation | None:
        """The operation once it has ended; None when `timeout` seconds were not enough."""
        with self.watchers.waits(operation_id):
            return await self._ended(operation_id, timeout)

    async def _ended(self, operation_id: str, timeout: float) -> Operation | None:
        ended = self.watchers.ended(operation_id)
        current = await self.db.read(lambda conn: operations.get(conn, operation_id))
        if current is None:
            return None
        if current.state not in operations.ACTIVE:
            self.watchers.end(current)
            return current
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            # One that another coordinator works on, or may take over, is looked at now and then: news of its end may
            # be lost.
            try:
                return await asyncio.wait_for(asyncio.shield(ended), left if self._exclusive else min(left, _LOOK_S))
            except TimeoutError:
                if not self._exclusive:
                    await self.look(operation_id)
        return ended.result() if ended.done() else None

    async def look(self, operation_id: str) -> None:
        """Tell those who wait here for an operation when it has ended elsewhere."""
        if operation_id in self._tasks or not self.watchers.watched(operation_id):
            return
        current = await self.db.read(lambda conn: operations.get(conn, operation_id))
        if current is not None and current.state not in operations.ACTIVE:
            self.watchers.end(current)

    def held(self) -> Collection[str]:
        """The operations that are worked on here."""
        return self._tasks.keys()

    def stop(self, operation_id: str) -> None:
        """Cancel it if it is worked on here; its row says so already."""
        if operation_id in self._cancels:
            self._cancels[operation_id].set()

    async def cancel(self, operation_id: str) -> None:
        """Ask for cancellation; the operation is then undone. Raises NotCancellable when it is too late."""
        if not await self.db.write(lambda conn: operations.request_cancel(conn, operation_id)):
            current = await self.db.read(lambda conn: operations.get(conn, operation_id))
            raise NotCancellable(operation=operation_id, state=current.state if current else "unknown")
        self.stop(operation_id)
        self.db.news.tell(news.CANCELLED, operation_id)

    async def retry(self, operation_id: str) -> Operation:
        """Undo again what could not be undone before.

        Raises NotRetryable when there is nothing of that kind, WorkUnknown when only another release can do it.
        """
        known = self.workflows.known
        operation = await self.db.write(lambda conn: operations.retake(conn, operation_id, self.owner, known))
        if operation is None:
            current = await self.db.read(lambda conn: operations.get(conn, operation_id))
            if current is None:
                raise NotFound(noun="Operation", id=operation_id)
            if (current.kind, current.version) not in known:
                raise WorkUnknown(operation=operation_id, kind=current.kind, version=current.version)
            raise NotRetryable(operation=operation_id, state=current.state)
        self.start(operation)
        return operation

    def progress(self, operation_id: str, progress: Mapping[str, Any]) -> None:
        self.watchers.progress(operation_id, progress)
        if not self._exclusive:
            self._progress.note(operation_id)

    async def waiting(self, operation: Operation, reason: str | None) -> None:
        """Make a wait visible on the row and as an issue, with its beginning."""
        since = utcnow() if reason else None

        def store(conn: Connection) -> None:
            operations.fenced(conn, operation, waiting=reason, waiting_since=since)
            waits.told(conn, operation, reason)

        await self.db.write(store)

    def finished(self, operation: Operation, jobs: list[tuple[str, str]]) -> None:
        """Called by `Run` when an operation ended; `jobs` are (host, key) that the hosts may now forget."""
        self._acknowledger.add(jobs)
        self.watchers.end(operation)
        self.db.news.tell(news.ENDED, operation.id)

    async def _run(self, operation: Operation, begun: Next | None, cancel: asyncio.Event) -> None:
        workflow = self.workflows.of(operation)
        async with Slot(self._slots) as slot:
            with bound(operation=operation.id, request_id=operation.request_id, resource=operation.resource_id):
                conversation = Conversation(
                    self.agents, self, cancel, slot, self._away_deadline_s, self._member_lease_s
                )
                await self._run_on(operation, begun, workflow, conversation)

    async def _run_on(
        self, operation: Operation, begun: Next | None, workflow: Workflow, conversation: Conversation
    ) -> None:
        """Run it to its end, however often the database or a defect gets in the way."""
        pause_s, more = _FIRST_PAUSE_S, 1
        while True:
            try:
                return await Run(self.db, workflow, conversation, self).go(operation, begun)
            except LeaseLost:
                fresh = await self._taken_back(operation, more)
                more *= 2
                if fresh is None:
                    log.warning("operation was taken over by another coordinator")
                    return None
            except Exception as error:
                log.exception("operation can not go on for now", kind=operation.kind, reason=str(error))
                async with conversation.slot.given_up():
                    await self._show_wait(operation, error)
                    await asyncio.sleep(pause_s)
                    fresh = await self._reread(operation, error)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                if fresh is None:
                    return None
            operation, begun = fresh, None

    async def _taken_back(self, operation: Operation, more: int) -> Operation | None:
        """Ours still, but a host knows of a higher epoch (the database was restored): raise ours. None: not ours."""
        try:
            return await self.db.write(lambda conn: operations.raise_epoch(conn, operation, more))
        except DatabaseUnavailable as error:
            log.exception("the database can not be written")
            return await self._reread(operation, error)

    async def _show_wait(self, operation: Operation, error: Exception) -> None:
        """Best effort: what keeps it from going on may be the database itself."""
        why = error.code if isinstance(error, BrickyardError) else type(error).__name__
        with suppress(Exception):
            await self.waiting(operation, f"it is tried again after {why}")

    async def _reread(self, operation: Operation, error: Exception) -> Operation | None:
        """The row as it is now, while it is still ours to work on.

        Until it can be read nothing is done: what we have in hand may be older, and a step would be done twice.
        """
        while True:
            try:
                if isinstance(error, CommitInDoubt):  # it may be under way still
                    await was_kept(self.db, error, lambda conn: True)
                row = await self.db.read(lambda conn: operations.get(conn, operation.id))
                break
            except Exception:
                log.exception("the database can not be read")
                await asyncio.sleep(_FIRST_PAUSE_S)
        if row is None or row.epoch != operation.epoch:
            return None
        if row.state in operations.ACTIVE:
            return row
        self.finished(row, jobs_of(row))  # Its end was kept after all.
        return None

    def _forget(self, operation_id: str) -> None:
        self._tasks.pop(operation_id, None)
        self._epochs.pop(operation_id, None)
        self._cancels.pop(operation_id, None)
        self.watchers.left(operation_id)
        if not self._tasks:
            self._leases.busy.clear()
