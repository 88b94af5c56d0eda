"""One operation from where it stands to its end: a transaction, a job, a transaction, …"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from agent.base.errors import BrickyardError, from_body
from agent.base.faults import declare, fault_point
from agent.base.log import get_logger
from coordinator.operations import draining, members
from coordinator.operations.advance import (
    MAX_ATTEMPTS,
    Next,
    StepRefused,
    advance,
    again,
    fail,
    fenced,
    give_up_undo,
    jobs_of,
    of_defect,
    retreat,
    revive,
    undo_again,
)
from coordinator.operations.draining import Drains
from coordinator.operations.errors import Cancelled, HostDrained, UnknownHost, WaitedTooLong
from coordinator.operations.jobs import Conversation, MemberLost, NotDelivered
from coordinator.operations.step_log import tell
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, WaitStep, Workflow
from coordinator.state import enrolment, volumes
from coordinator.state.database import Database
from coordinator.state.errors import DatabaseUnavailable, LeaseLost
from coordinator.state.operations import Operation

log = get_logger(__name__)
_T = TypeVar("_T")
_LISTED_S, _LIST_AGAIN_S = 60.0, 0.5
Moved = tuple[Operation, Next | None]
Done = tuple[str, dict[str, Any] | None]
declare(
    "coordinator.step.begin",
    "coordinator.job.before-post",
    "coordinator.job.result-in-hand",
    "coordinator.step.committed",
    "coordinator.undo.begin",
    "coordinator.undo.before-post",
    "coordinator.operation.ended",
)


class Ended(Protocol):
    drains: Drains

    def finished(self, operation: Operation, jobs: list[tuple[str, str]]) -> None: ...


class Run:
    """Drives one operation; every change is fenced by its owner and epoch."""

    def __init__(self, db: Database, workflow: Workflow, conversation: Conversation, engine: Ended) -> None:
        self._db = db
        self._workflow = workflow
        self._talk = conversation
        self._engine = engine
        self._resumed = False
        self._lost_since: float | None = None
        self._unlisted_since: float | None = None

    async def go(self, operation: Operation, begun: Next | None = None) -> None:
        """Run to the end; raises LeaseLost when another coordinator has taken over.

        `begun`: what is to be done next, where its first steps were done already.
        """
        self._resumed = operation.epoch > 1
        fault_point("coordinator.step.begin")
        moved = (operation, begun) if begun is not None else await self._first(operation)
        tell(None, moved[0])
        while (todo := moved[1]) is not None:
            before = moved[0]
            forward = before.state == "running"
            moved = await (self._forward(before, todo) if forward else self._backward(before, todo))
            tell(before, moved[0])
            fault_point("coordinator.step.committed")
        fault_point("coordinator.operation.ended")
        self._engine.finished(moved[0], jobs_of(moved[0]))

    async def _first(self, operation: Operation) -> Moved:
        workflow = self._workflow
        if operation.state == "undoing":
            return await self._write(operation, lambda conn: retreat(conn, workflow, operation))
        return await self._advance(operation)

    async def _advance(self, operation: Operation, done: Done | None = None) -> Moved:
        workflow = self._workflow
        company = f"{workflow.kind} after {operation.step}" if workflow.together(operation) else None
        try:
            return await self._write(
                operation, lambda conn: advance(conn, workflow, operation, done, hopeful=True), together=company
            )
        except StepRefused:
            return await self._write(operation, lambda conn: advance(conn, workflow, operation, done))

    async def _forward(self, operation: Operation, todo: Next) -> Moved:
        workflow = self._workflow
        step = workflow.step(todo.step)
        if isinstance(step, WaitStep):
            return await self._outside(operation, step)
        if isinstance(step, LocalStep):
            return await self._later(operation, step, todo.pause_s)
        if todo.held is not None:
            return await self._held(operation, step, todo.held)
        assert todo.call is not None
        call = todo.call
        try:
            if self._talk.cancelled.is_set():
                raise Cancelled
            fault_point("coordinator.job.before-post")
            may_move = (step.elsewhere is not None or call.shared) and not self._resumed
            result = await self._talk.run(operation, todo.key, call, may_move=may_move)
            fault_point("coordinator.job.result-in-hand")
        except NotDelivered as why:
            elsewhere = step.elsewhere
            if elsewhere is None:
                return await self._by_another(operation, step, todo, why)
            # The poller marks the host as away in a moment; until then it would be chosen again at once.
            await self._pause(min(1.0, 0.05 * operation.attempt(step.name)))
            return await self._write(operation, lambda conn: again(conn, workflow, operation, step, elsewhere))
        except MemberLost as why:
            return await self._by_another(operation, step, todo, why)
        except BrickyardError as error:
            if await self._is_unlisted(error):
                return operation, todo
            if call.shared and await self._is_gone(error):
                return await self._by_another(operation, step, todo, error)
            return await self._after_error(operation, step, error)
        return await self._advance(operation, (step.name, result))

    async def _by_another(self, operation: Operation, step: JobStep, todo: Next, why: BrickyardError) -> Moved:
        """The host does not do it (any more): another one of its cluster does; without one, it is waited for."""
        workflow, call = self._workflow, todo.call
        assert call is not None
        await self._pause(0.2)
        lost = call.host_id
        if await self._db.write(lambda conn: members.taken_over(conn, operation, lost)):
            # From now on only a lease that ran out says that nothing was delivered.
            self._resumed, self._lost_since = True, None
            return await self._write(operation, lambda conn: again(conn, workflow, operation, step, step.retry_from))
        if isinstance(why, UnknownHost):
            return await self._after_error(operation, step, why)
        self._lost_since = self._lost_since or time.monotonic()
        waited = time.monotonic() - self._lost_since
        if waited > self._talk.away_deadline_s:
            return await self._after_error(operation, step, WaitedTooLong(host=lost, seconds=int(waited)))
        self._resumed = True
        return operation, todo

    async def _later(self, operation: Operation, step: LocalStep, seconds: float) -> Moved:
        workflow = self._workflow
        await self._pause(seconds)
        if self._talk.cancelled.is_set():
            return await self._fail(operation, step.name, Cancelled())
        return await self._write(operation, lambda conn: advance(conn, workflow, operation))

    async def _held(self, operation: Operation, step: JobStep, host_id: str) -> Moved:
        """The host is drained: begin there when it is enabled again."""
        workflow, drains = self._workflow, self._engine.drains
        why = await drains.why(host_id)
        if why is not None:
            log.info("waiting for a drained host", host=host_id)
            await self._talk.listener.waiting(operation, draining.reason(host_id, why))
        over = asyncio.ensure_future(drains.over(host_id, self._talk.away_deadline_s))
        stop = asyncio.ensure_future(self._talk.cancelled.wait())
        failure: BrickyardError
        try:
            async with self._talk.slot.given_up():
                await asyncio.wait({over, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                raise Cancelled
            over.result()
        except (Cancelled, HostDrained) as error:
            failure = error
            return await self._write(operation, lambda conn: fail(conn, workflow, operation, step.name, failure))
        finally:
            stop.cancel()
            over.cancel()
        if why is not None:
            await self._talk.listener.waiting(operation, None)
        return await self._advance(operation)

    async def _outside(self, operation: Operation, step: WaitStep) -> Moved:
        workflow = self._workflow
        waiting = asyncio.ensure_future(step.wait(operation))
        stop = asyncio.ensure_future(self._talk.cancelled.wait())
        try:
            async with self._talk.slot.given_up():
                until = {waiting, stop} if step.cancellable else {waiting}
                await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Cancelled
            result = waiting.result()
        except BrickyardError as error:
            _not_of_the_job(operation, error)
            log.info("step failed", step=step.name, code=error.code, reason=str(error))
            return await self._fail(operation, step.name, error)
        except Exception as error:
            log.exception("a step has a defect", kind=operation.kind, step=step.name)
            return await self._defect(operation, of_defect(error))
        finally:
            stop.cancel()
            waiting.cancel()
        return await self._write(operation, lambda conn: advance(conn, workflow, operation, (step.name, result)))

    async def _after_error(self, operation: Operation, step: JobStep, error: BrickyardError) -> Moved:
        workflow = self._workflow
        _not_of_the_job(operation, error)
        if step.gone_is_done and await self._is_gone(error):
            log.info("nothing is left to do on a host that was evicted", step=step.name)
            return await self._write(operation, lambda conn: advance(conn, workflow, operation, (step.name, None)))
        if error.code in step.answers:
            log.info("step was answered with a refusal", step=step.name, code=error.code, reason=str(error))
            done = (step.name, {"refused": error.code, "reason": str(error)})
            return await self._write(operation, lambda conn: advance(conn, workflow, operation, done))
        retry_after = 1.0 if error.code in step.again_on else getattr(error, "retry_after", None)
        attempt = operation.attempt(step.name)
        if retry_after is not None and attempt < MAX_ATTEMPTS:
            log.info("step failed for now", step=step.name, attempt=attempt, code=error.code, reason=str(error))
            await self._pause(min(30.0, float(retry_after) * 2 ** (attempt - 1)))
            return await self._write(operation, lambda conn: again(conn, workflow, operation, step, step.retry_from))
        log.info("step failed", step=step.name, code=error.code, reason=str(error))
        if step.elsewhere is not None:
            # What it was chosen by may be out of date.
            self._talk.agents.look(str(operation.steps[step.name]["host"]))
        return await self._fail(operation, step.name, error)

    async def _backward(self, operation: Operation, todo: Next) -> Moved:
        workflow = self._workflow
        step = workflow.step(todo.step)
        fault_point("coordinator.undo.begin")
        try:
            if todo.tombstone is not None:
                done = await self._unless_gone(self._bury(operation, step, todo))
                if done is not None:
                    return await self._write(operation, lambda conn: revive(conn, workflow, operation, step.name, done))
            if todo.call is not None:
                fault_point("coordinator.undo.before-post")
                await self._unless_gone(self._talk.run(operation, todo.key, todo.call, may_move=False), todo.call)
        except MemberLost as lost:
            return await self._undone_by_another(operation, todo, lost)
        except BrickyardError as error:
            if await self._is_unlisted(error, undoing=True):
                return operation, todo
            if todo.call is not None and todo.call.shared and await self._is_gone(error):
                return await self._undone_by_another(operation, todo, error)
            return await self._undo_error(operation, todo, error)
        return await self._write(operation, lambda conn: retreat(conn, workflow, operation, step.name))

    async def _undone_by_another(self, operation: Operation, todo: Next, why: BrickyardError) -> Moved:
        workflow, lost = self._workflow, str(why.context["host"])
        await self._pause(0.2, undoing=True)
        if await self._db.write(lambda conn: members.taken_over(conn, operation, lost)):
            marked = await self._db.write(lambda conn: undo_again(conn, fenced(operation, todo.step), todo.step))
            return await self._write(marked, lambda conn: retreat(conn, workflow, marked))
        return (operation, todo) if isinstance(why, MemberLost) else await self._undo_error(operation, todo, why)

    async def _unless_gone(self, work: Awaitable[_T], call: JobCall | None = None) -> _T | None:
        """What a host that was evicted would have undone is gone with it, unless other hosts see it too."""
        try:
            return await work
        except UnknownHost as error:
            if (call is not None and call.shared) or not await self._is_gone(error):
                raise
            return None

    async def _is_gone(self, error: BrickyardError) -> bool:
        """Whether the host that is not known here is really not enrolled any more: rows decide."""
        if not isinstance(error, UnknownHost):
            return False
        host_id = str(error.context["host"])
        return await self._db.read(lambda conn: enrolment.host(conn, host_id)) is None

    async def _is_unlisted(self, error: BrickyardError, *, undoing: bool = False) -> bool:
        """Whether the host was enrolled at another coordinator, and the list here is only older; waits a bit then."""
        if not isinstance(error, UnknownHost) or await self._is_gone(error):
            return False
        self._unlisted_since = self._unlisted_since or time.monotonic()
        if time.monotonic() - self._unlisted_since > _LISTED_S:
            return False
        await self._pause(_LIST_AGAIN_S, undoing=undoing)
        return True

    async def _bury(self, operation: Operation, step: object, todo: Next) -> dict[str, Any] | None:
        """Post the tombstone to the host that the step's job was, or would have been, given to.

        The job's result when it is too late for that; raises when not even the host can say.
        """
        assert isinstance(step, JobStep)
        assert todo.tombstone is not None
        host, shared = str(operation.steps[step.name]["host"]), todo.call is not None and todo.call.shared
        status = await self._talk.tombstone(operation, host, todo.tombstone, shared=shared)
        if not step.final or status.state == "cancelled":
            return None
        if status.state == "done":
            return status.result or {}
        error = from_body(status.error.model_dump()) if status.error is not None else None
        if error is not None and error.code in step.unclear:
            raise error
        return None

    async def _undo_error(self, operation: Operation, todo: Next, error: BrickyardError) -> Moved:
        workflow = self._workflow
        _not_of_the_job(operation, error)
        attempt = operation.attempt(f"{todo.step}.undo")
        if isinstance(error, WaitedTooLong) or attempt >= MAX_ATTEMPTS:
            return await self._give_up(operation, todo.step, error)
        await self._pause(min(30.0, 2.0 ** (attempt - 1)), undoing=True)
        marked = await self._db.write(lambda conn: undo_again(conn, operation, todo.step))
        return await self._write(marked, lambda conn: retreat(conn, workflow, marked))

    async def _pause(self, seconds: float, *, undoing: bool = False) -> None:
        """Back off before another attempt, unless the work is cancelled meanwhile; an undo can not be cancelled."""
        async with self._talk.slot.given_up():
            if undoing:
                await asyncio.sleep(seconds)
                return
            try:
                await asyncio.wait_for(self._talk.cancelled.wait(), seconds)
            except TimeoutError:
                return

    async def _write(
        self, operation: Operation, fn: Callable[[Connection], Moved], *, together: str | None = None
    ) -> Moved:
        """One fenced transaction; a defect in a step fails the operation instead of leaving it stuck."""
        try:
            need = None
            if together is not None and operation.resource_type == "volume":
                need = (volumes.know_all, operation.resource_id)
            return await self._db.write(fn, patient=True, together=together, need=need)
        except (LeaseLost, DatabaseUnavailable, StepRefused):
            raise
        except Exception as error:
            log.exception("a step has a defect", kind=operation.kind)
            return await self._defect(operation, of_defect(error))

    async def _defect(self, operation: Operation, error: BrickyardError) -> Moved:
        step = operation.step or self._workflow.steps[0].name
        if operation.state == "running":
            return await self._fail(operation, step, error)
        return await self._give_up(operation, step, error)

    async def _fail(self, operation: Operation, step: str, error: BrickyardError) -> Moved:
        """Turn to undoing. A defect in an undo would be met again for ever: then it ends with both causes named."""
        workflow = self._workflow
        try:
            return await self._db.write(lambda conn: fail(conn, workflow, operation, step, error), patient=True)
        except (LeaseLost, DatabaseUnavailable):
            raise
        except Exception as undoing:
            log.exception("an undo has a defect", kind=operation.kind)
            return await self._give_up(replace(operation, error=error.to_body()), step, of_defect(undoing))

    async def _give_up(self, operation: Operation, step: str, error: BrickyardError) -> Moved:
        workflow = self._workflow
        return await self._db.write(lambda conn: give_up_undo(conn, workflow, operation, step, error)), None


def _not_of_the_job(operation: Operation, error: BrickyardError) -> None:
    """Raise what is no word of the end of a job or a wait: it goes on, and a new attempt would be a second one."""
    if error.code == "stale-epoch":
        raise LeaseLost(id=operation.id, epoch=operation.epoch)
    if isinstance(error, (LeaseLost, DatabaseUnavailable)):
        raise error
