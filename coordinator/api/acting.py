"""On whose behalf a call works: the scope of what it may find, and the requester of the operations it accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from sqlalchemy import Connection, Row

from agent.base.errors import NotFound, from_body
from coordinator.api.call import Call
from coordinator.api.errors import NeedsProject
from coordinator.operations.accept import Requester
from coordinator.operations.compute_service import ComputeService
from coordinator.operations.engine import Engine
from coordinator.operations.errors import NotCancellable, StillRunning
from coordinator.operations.external_attachments import vouched_by
from coordinator.state import attachments, events, operations, snapshots, volumes
from coordinator.state.operations import Operation
from coordinator.state.volume_lists import Shown


def scope(call: Call) -> str | None:
    """The project that rows are looked up in; None for an administrator, who finds all."""
    return None if call.context.is_admin else call.context.project_id


def own_project(call: Call) -> str:
    """The project that something new belongs to; raises NeedsProject (400) for a scope without one."""
    if not call.context.project_id:
        raise NeedsProject
    return call.context.project_id


async def check_project(call: Call, project_id: str) -> None:
    """Raise NotFound (404) for a project that is not there, as far as who proves identities can tell."""
    if await call.services.authenticator.has_project(project_id) is False:
        raise NotFound(noun="Project", id=project_id[:64])


def requester(call: Call, project_id: str | None = None) -> Requester:
    """Who asks. `project_id` is that of the resource worked on, where it may be another's (an administrator's work)."""
    return Requester(
        project_id=project_id if project_id is not None else own_project(call),
        user_id=call.context.user_id,
        request_id=call.context.request_id,
        owner=call.services.get(Engine).owner,
    )


def changed(conn: Connection, call: Call, resource_type: str, row: Row[Any], type: str) -> None:
    """Record the event of a change that was made at once."""
    events.record(conn, requester(call, row.project_id).change(resource_type, row.id), type, {})


def site_changed(conn: Connection, call: Call, of: tuple[str, str], type: str, payload: Mapping[str, Any]) -> None:
    """Record the event of a change to what belongs to no project (kind and id): only who may see all events sees it."""
    about = events.Change(*of, "", call.context.user_id, call.context.request_id)
    events.record(conn, about, type, payload)


def owned_volume(conn: Connection, call: Call, volume_id: str, rule: str) -> Row[Any]:
    """The volume, when the caller may see it and policy allows `rule` on it; raises NotFound, Forbidden."""
    row = volumes.get(conn, volume_id, scope(call))
    call.require(rule, target(row))
    return row


def owned_snapshot(conn: Connection, call: Call, snapshot_id: str, rule: str) -> Row[Any]:
    """Like `owned_volume`, for a snapshot."""
    row = snapshots.get(conn, snapshot_id, scope(call))
    call.require(rule, target(row))
    return row


def owned_attachment(conn: Connection, call: Call, attachment_id: str, rule: str) -> Row[Any]:
    """Like `owned_volume`, for an attachment."""
    row = attachments.get(conn, attachment_id, scope(call))
    call.require(rule, target(row))
    return row


def owner_of(call: Call, instance_id: str | None) -> Literal["external", "compute"]:
    """Who keeps an attachment that is asked for: the compute service, when a service vouches and names a server."""
    return "compute" if instance_id is not None and call.context.is_service else "external"


async def vouched(call: Call, find: Callable[[Connection], Sequence[Row[Any]]]) -> bool:
    """Whether these attachments may be ended though servers have them: a service, or the compute service, says so.

    Raises UsedByCompute, ComputeUnsure.
    """
    compute = call.services.find(ComputeService)
    if call.context.is_service or compute is None:
        return call.context.is_service
    return await vouched_by(compute.used, await call.services.db.read(find))


async def carried_out(call: Call, begun: Iterable[Operation | None]) -> None:
    """Start these operations, or join those of earlier calls, and wait for their end as long as a call may.

    Raises what made one fail, StillRunning when the time is over: the work then goes on.
    """
    engine, limit = call.services.get(Engine), call.services.settings.sync_timeout
    wanted = [operation for operation in begun if operation is not None]
    for operation in wanted:
        if operation.request_id == call.context.request_id:
            engine.start(operation)
    for operation in wanted:
        ended = await engine.wait(operation.id, limit)
        if ended is None:
            raise StillRunning(operation=operation.id, seconds=int(limit))
        if ended.state != "done":
            raise from_body(ended.error or {})


async def end_work(call: Call, resource_id: str) -> None:
    """Cancel what is at work on a resource and wait until it has been undone, for `force`; no longer than a call may.

    Work that can not be cancelled any more is waited for. Raises StillRunning.
    """
    engine = call.services.get(Engine)
    working = await call.services.db.read(lambda conn: operations.active_of(conn, resource_id))
    if working is None:
        return
    with suppress(NotCancellable):
        await engine.cancel(working.id)
    if await engine.wait(working.id, call.services.settings.sync_timeout) is None:
        raise StillRunning(operation=working.id, seconds=int(call.services.settings.sync_timeout))


def target(row: Row[Any] | Shown) -> Mapping[str, Any]:
    """A row as policy rules look at it."""
    return {"project_id": row.project_id, "user_id": getattr(row, "user_id", None)}
