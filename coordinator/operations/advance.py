"""One fenced transaction of an operation: store what was done, run the local steps that follow, name the next job.

`advance` goes forward, `retreat` undoes in reverse. Both return the operation as stored, and the job to do next or
None when the operation has ended. Nothing here waits or talks to a host.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from agent.base.errors import BrickyardError, from_body
from agent.base.log import get_logger
from agent.wire.jobs import job_args
from coordinator.lifecycle.operation import OPERATION
from coordinator.operations import draining, members
from coordinator.operations.errors import Cancelled, UndoFailed
from coordinator.operations.workflow import JobCall, JobStep, WaitStep, Workflow
from coordinator.state import events, operations, outward
from coordinator.state.errors import DatabaseUnavailable, LeaseLost
from coordinator.state.operations import Operation
from coordinator.state.savepoint import savepoint
from coordinator.state.tables.columns import utcnow

log = get_logger(__name__)
T = TypeVar("T")
MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Next:
    """The job to do: forward for `step`, or (undo) after posting a tombstone for `tombstone`. A wait has no call.

    `pause_s`: a local step is to be tried again after that many seconds. `held`: a job step may be begun only when this
    host is not drained any more.
    """

    step: str
    call: JobCall | None
    key: str
    tombstone: str | None = None
    pause_s: float = 0.0
    held: str | None = None


def _mark(operation: Operation, step: str, **entry: Any) -> Operation:
    return replace(operation, steps={**operation.steps, step: {**operation.steps.get(step, {}), **entry}}, step=step)


def _key(operation: Operation, step: str, attempt: int) -> str:
    return f"{operation.id}/{step}/{attempt}"


def jobs_of(operation: Operation) -> list[tuple[str, str]]:
    """(host, key) of the jobs that it gave out. One tried on another host before is found when that host is polled."""
    return [
        (entry["host"], _key(operation, name, attempt))
        for name, entry in operation.steps.items()
        if "host" in entry
        for attempt in range(1, operation.attempt(name) + 1)
    ]


def _pinned(operation: Operation, step: JobStep, name: str, call: JobCall) -> tuple[Operation, JobCall]:
    """The call as it was first made under this attempt, where the step wants that; its secrets are never stored."""
    if not step.pinned:
        return operation, call
    attempt = operation.attempt(name)
    said = operation.steps.get(name, {}).get("said")
    if said is not None and said["attempt"] == attempt:
        return operation, replace(call, host_id=said["host"], args=job_args.validate_python(said["args"]))
    said = {"attempt": attempt, "host": call.host_id, "args": call.args.model_dump(mode="json")}
    return _mark(operation, name, said=said), call


def _store(conn: Connection, operation: Operation, **values: Any) -> Operation:
    return operations.moved_on(
        conn, operation, steps=operation.steps, step=operation.step, waiting=None, waiting_since=None, **values
    )


class StepRefused(Exception):
    """A step raised where nothing keeps what it wrote apart: the transaction is to be made again with savepoints."""


class _UndoRaised(Exception):
    """An undo raised `error`; nothing of what it wrote is left, and all that was undone before it stays so."""

    def __init__(self, error: BrickyardError) -> None:
        super().__init__(str(error))
        self.error = error


def of_defect(error: Exception) -> BrickyardError:
    """What is told of an error that nobody foresaw."""
    return error if isinstance(error, BrickyardError) else BrickyardError(reason=type(error).__name__)


def _guarded(conn: Connection, undo: Callable[[], T]) -> T:
    try:
        with savepoint(conn, "undo"):
            return undo()
    except (DBAPIError, DatabaseUnavailable, LeaseLost):
        raise  # the whole transaction fails with it
    except Exception as error:
        log.exception("an undo has failed")
        raise _UndoRaised(of_defect(error)) from error


def advance(
    conn: Connection,
    workflow: Workflow,
    operation: Operation,
    done: tuple[str, dict[str, Any] | None] | None = None,
    *,
    hopeful: bool = False,
) -> tuple[Operation, Next | None]:
    """Go forward after `done` (a job step's name and result). A failing local step turns the operation to undoing.

    `hopeful` saves the savepoints, which are most of the statements of a short step; raises StepRefused.
    """
    if done is not None:
        operation = _mark(operation, done[0], state="done", result=done[1])
    for step in workflow.steps:
        if operation.steps.get(step.name, {}).get("state") == "done":
            continue
        if isinstance(step, WaitStep):
            if step.needed(operation):
                return _store(conn, operation), Next(step.name, None, "")
            operation = _mark(operation, step.name, state="done", result=None)
            continue
        try:
            with nullcontext() if hopeful else savepoint(conn):
                if isinstance(step, JobStep):
                    call = step.call(conn, operation)
                    if call is not None and draining.held_back(conn, workflow, operation, call):
                        return _store(conn, operation), Next(step.name, None, "", held=call.host_id)
                    if call is not None:
                        operation, call = _pinned(operation, step, step.name, members.shared(conn, operation, call))
                        operation = _mark(operation, step.name, state="running", host=call.host_id)
                        key = _key(operation, step.name, operation.attempt(step.name))
                        return _store(conn, operation), Next(step.name, call, key)
                    result = None
                else:
                    result = step.run(conn, operation)
        except BrickyardError as error:
            if hopeful:
                raise StepRefused from error
            attempt, retry_after = operation.attempt(step.name), getattr(error, "retry_after", None)
            if isinstance(step, JobStep) or retry_after is None or attempt >= MAX_ATTEMPTS:
                return fail(conn, workflow, operation, step.name, error)
            operation = _mark(operation, step.name, state="again", attempt=attempt + 1)
            return _store(conn, operation), Next(step.name, None, "", pause_s=float(retry_after) * 2 ** (attempt - 1))
        operation = _mark(operation, step.name, state="done", result=result)
    workflow.finished(conn, operation)
    events.record(conn, operation, f"{workflow.kind}.end", {})
    ended = _store(conn, operation, state=OPERATION.rule("finish").target, finished_at=utcnow())
    return ended, None


def fail(
    conn: Connection, workflow: Workflow, operation: Operation, step: str, error: BrickyardError
) -> tuple[Operation, Next | None]:
    """Turn to undoing because of `error` in `step`, and take the first undo."""
    operation = replace(operation, error=error.to_body(), step=step)
    stored = _store(conn, operation, state=OPERATION.rule("fail").target, error=operation.error)
    return retreat(conn, workflow, stored)


def retreat(
    conn: Connection, workflow: Workflow, operation: Operation, undone: str | None = None
) -> tuple[Operation, Next | None]:
    """Undo finished steps, and the one whose outcome is unknown, in reverse order; then fail, or begin anew.

    An undo that raises would do so again: the operation then ends with both causes named.
    """
    if undone is not None:
        operation = replace(_mark(operation, undone, state="undone"), step=operation.step)
    failed_at = workflow.index(operation.step) if operation.step else -1
    for position in range(len(workflow.steps) - 1, -1, -1):
        step = workflow.steps[position]
        entry = operation.steps.get(step.name, {})
        state = entry.get("state")
        # A job that no host was named for yet can not have been given out.
        in_doubt = position == failed_at and isinstance(step, JobStep) and state != "undone" and "host" in entry
        if state != "done" and not in_doubt:
            continue
        try:
            if isinstance(step, JobStep):
                call = _guarded(conn, partial(step.undo, conn, operation)) if step.undo else None
            elif step.undo is not None:
                _guarded(conn, partial(step.undo, conn, operation))
        except _UndoRaised as raised:
            return give_up_undo(conn, workflow, operation, step.name, raised.error), None
        if isinstance(step, JobStep):
            # A host that was fenced does nothing any more, and may not be there to be told.
            buried = in_doubt and not entry.get("fenced")
            tombstone = _key(operation, step.name, operation.attempt(step.name)) if buried else None
            if call is not None or tombstone is not None:
                return _undo_of(conn, operation, step, call, tombstone)
        operation = replace(_mark(operation, step.name, state="undone"), step=operation.step)
    error = from_body(operation.error or {})
    try:
        anew = _guarded(conn, lambda: workflow.anew(conn, operation, error))
        if anew is None:
            _guarded(conn, lambda: workflow.failed(conn, operation, error))
    except _UndoRaised as raised:
        return give_up_undo(conn, workflow, operation, operation.step or "", raised.error), None
    if anew is not None:
        return advance(conn, workflow, _store(conn, anew, state=OPERATION.rule("elsewhere").target, error=None))
    events.record(conn, operation, f"{workflow.kind}.error", {"error": operation.error})
    event = "cancelled" if isinstance(error, Cancelled) else "undone"
    return _store(conn, operation, state=OPERATION.rule(event).target, finished_at=utcnow()), None


def _undo_of(
    conn: Connection, operation: Operation, step: JobStep, call: JobCall | None, tombstone: str | None
) -> tuple[Operation, Next]:
    """The job that undoes a step, and the tombstone before it."""
    undo = f"{step.name}.undo"
    key = _key(operation, undo, operation.attempt(undo))
    if call is not None:
        failed_in = operation.step
        operation, call = _pinned(operation, step, undo, members.shared(conn, operation, call))
        operation = replace(_mark(operation, undo, host=call.host_id), step=failed_in)
    return _store(conn, operation), Next(step.name, call, key, tombstone)


def revive(
    conn: Connection, workflow: Workflow, operation: Operation, step: str, result: dict[str, Any]
) -> tuple[Operation, Next | None]:
    """Go forward again: the step that was to be undone is done, and stays."""
    operation = replace(operation, error=None)
    stored = _store(conn, operation, state=OPERATION.rule("done_after_all").target, error=None)
    return advance(conn, workflow, stored, (step, result))


def again(
    conn: Connection, workflow: Workflow, operation: Operation, step: JobStep, back_to: str | None
) -> tuple[Operation, Next | None]:
    """Try a job step anew under a higher attempt, from `back_to` (itself or an earlier step) on."""
    first = workflow.index(back_to or step.name)
    for other in workflow.steps[first : workflow.index(step.name) + 1]:
        if isinstance(other, JobStep):
            operation = _mark(operation, other.name, state="again", attempt=operation.attempt(other.name) + 1)
        else:
            if operation.steps.get(other.name, {}).get("state") == "done" and other.undo is not None:
                other.undo(conn, operation)
            operation = _mark(operation, other.name, state="again")
    return advance(conn, workflow, operation)


def fenced(operation: Operation, step: str) -> Operation:
    """Note that the host of this step's job has given it up by itself; no tombstone is needed there."""
    return replace(_mark(operation, step, fenced=True), step=operation.step)


def undo_again(conn: Connection, operation: Operation, step: str) -> Operation:
    """Raise the attempt of an undo job after a temporary failure."""
    undo = f"{step}.undo"
    marked = _mark(operation, undo, attempt=operation.attempt(undo) + 1)
    return _store(conn, replace(marked, step=operation.step))


def give_up_undo(
    conn: Connection, workflow: Workflow, operation: Operation, step: str, error: BrickyardError
) -> Operation:
    """End with both causes named and the resource marked as needing attention."""
    cause = from_body(operation.error or {})
    both = UndoFailed(
        cause=str(cause), cause_told=outward.sentence(cause), step=step, undo_cause=str(error),
        undo_cause_told=outward.sentence(error), operation=operation.id,
    )  # fmt: skip
    if workflow.attention is not None:
        workflow.attention(conn, operation, str(both))
    events.record(conn, operation, f"{workflow.kind}.attention", {"error": both.to_body()})
    return _store(
        conn, operation, state=OPERATION.rule("undo_failed").target, error=both.to_body(), finished_at=utcnow()
    )
