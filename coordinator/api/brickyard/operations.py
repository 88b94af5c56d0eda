"""Operations: list, show, watch, cancel, try an undo again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sqlalchemy import ColumnElement, Connection

from agent.base.errors import NotFound
from coordinator.api.acting import scope
from coordinator.api.brickyard.pages import PAGING, asked, next_marker, whole
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Time
from coordinator.api.paging import flag
from coordinator.api.route import Resource, get, post
from coordinator.operations.engine import Engine
from coordinator.state import operations, outward, site_lists
from coordinator.state.operations import ACTIVE, Operation
from coordinator.state.tables.operations import operations as table

_SEEN = "brickyard:operations:get"
_WHERE = "volume_extension:volume_host_attribute"
_LONGEST_WAIT_S = 60
_LOOK_S = 2.0
_FIELDS = (
    "id", "kind", "resource_type", "resource_id", "project_id", "user_id", "request_id", "state", "step",
    "cancel_requested", "created_at", "updated_at", "finished_at",
)  # fmt: skip


class OperationAnswer(Answer):
    """`seq` numbers the progress reports: give it as `after` to wait for the next. `steps` maps a name to its state."""

    id: str
    kind: str
    resource_type: str
    resource_id: str
    project_id: str
    user_id: str
    request_id: str
    state: str
    step: str | None
    steps: dict[str, str]
    waiting: str | None
    progress: dict[str, Any] | None
    seq: int
    error: dict[str, Any] | None
    cancel_requested: bool
    created_at: Time
    updated_at: Time | None
    finished_at: Time | None


class OperationList(Answer):
    operations: list[OperationAnswer]
    next_marker: str | None


def view(call: Call, operation: Any) -> dict[str, Any]:
    """An operation (or its row) as an answer, without arguments and results, told as far as the caller may know."""
    seq, progress = call.services.get(Engine).watchers.latest(operation.id)
    if progress is None and operation.progress is not None:
        seq, progress = _shared_seq(operation), operation.progress["told"]
    error, waiting = operation.error, operation.waiting
    if not call.may(_WHERE):
        error, waiting = error and outward.body(error), waiting and outward.waiting(waiting)
    return {
        **{name: getattr(operation, name) for name in _FIELDS},
        "waiting": waiting,
        "error": error,
        "steps": {name: str(step.get("state", "")) for name, step in operation.steps.items()},
        "progress": progress,
        "seq": seq,
    }


async def listed(call: Call) -> dict[str, Any]:
    where: list[ColumnElement[bool]] = [
        table.c[name] == call.query[name] for name in ("resource_id", "kind", "state") if call.query.get(name)
    ]
    if flag(call, "active"):
        where.append(table.c.state.in_(ACTIVE))
    everywhere = flag(call, "all_projects")
    if everywhere:
        call.require("brickyard:operations:get_all_projects")
    project, page = None if everywhere else call.context.project_id, asked(call)
    rows = await call.services.db.read(lambda conn: site_lists.operation_page(conn, project, where, page))
    return {
        "operations": [view(call, row) for row in rows],
        "next_marker": next_marker([row.id for row in rows], page),
    }


def _mine(conn: Connection, call: Call) -> Operation:
    found, mine = operations.get(conn, call.params["operation_id"]), scope(call)
    if found is None or mine not in {None, found.project_id}:
        raise NotFound(noun="Operation", id=call.params["operation_id"])
    return found


async def show(call: Call) -> dict[str, Any]:
    """With `wait` (seconds): answers at the first progress past `after`, at the end, or when the time is up."""
    operation = await call.services.db.read(lambda conn: _mine(conn, call))
    wait = whole(call, "wait", 0, _LONGEST_WAIT_S)
    if wait and operation.state in ACTIVE:
        operation = await _watched(call, operation, float(wait))
    return view(call, operation)


def _shared_seq(operation: Operation) -> int:
    """The number of the progress that the coordinator which works on it has stored."""
    return int((operation.progress or {}).get("seq", 0))


async def _elsewhere(call: Call, operation: Operation, wait: float) -> Operation:
    """Another coordinator works on it: its row is looked at, at each news and now and then."""
    watchers, after = call.services.get(Engine).watchers, whole(call, "after", _shared_seq(operation), 1 << 40)
    deadline = time.monotonic() + wait
    while operation.state in ACTIVE and _shared_seq(operation) <= after:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        await watchers.change(operation.id, watchers.latest(operation.id)[0], min(left, _LOOK_S))
        operation = await call.services.db.read(lambda conn: _mine(conn, call))
    if operation.state not in ACTIVE:
        watchers.end(operation)
    return operation


async def _watched(call: Call, operation: Operation, wait: float) -> Operation:
    engine = call.services.get(Engine)
    if operation.id not in engine.held():
        return await _elsewhere(call, operation, wait)
    watchers = engine.watchers
    after = whole(call, "after", watchers.latest(operation.id)[0], 1 << 40)
    change = asyncio.ensure_future(watchers.change(operation.id, after, wait))
    await asyncio.sleep(0)
    try:
        # Read only once the watch is on: an end in between would else be missed.
        now = await call.services.db.read(lambda conn: _mine(conn, call))
        if now.state not in ACTIVE:
            watchers.end(now)
            return now
        await change
    finally:
        change.cancel()
    return await call.services.db.read(lambda conn: _mine(conn, call))


async def cancel(call: Call) -> dict[str, Any]:
    """Asks for it; what was done is then undone."""

    def check(conn: Connection) -> Operation:
        found = _mine(conn, call)
        call.require("brickyard:operations:cancel", {"project_id": found.project_id, "user_id": found.user_id})
        return found

    operation = await call.services.db.read(check)
    await call.services.get(Engine).cancel(operation.id)
    return view(call, await call.services.db.read(lambda conn: _mine(conn, call)))


async def retry(call: Call) -> dict[str, Any]:
    return view(call, await call.services.get(Engine).retry(call.params["operation_id"]))


def resource() -> Resource:
    """The routes."""
    one: dict[str, Any] = {"answer": OperationAnswer, "answer_key": "operation"}
    filters = ("active", "resource_id", "kind", "state", "all_projects")
    return Resource(
        "operations",
        "Operations: the durable work on resources.",
        (
            get("", listed, _SEEN, "List operations, newest first.", answer=OperationList, query=(*PAGING, *filters)),
            get("/{operation_id}", show, _SEEN, "Show an operation, or wait for its next progress.",
                query=("wait", "after"), **one),
            post("/{operation_id}/cancel", cancel, "brickyard:operations:cancel", "Cancel running work.", status=202,
                 **one),
            post("/{operation_id}/retry", retry, "brickyard:issues:update",
                 "Try an undo again that had been given up.", status=202, **one),
        ),
        prefix="/brickyard/v1/operations",
    )  # fmt: skip
