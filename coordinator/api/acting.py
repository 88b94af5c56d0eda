"""On whose behalf a call works: the scope of what it may find, and the requester of the operations it accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row

from coordinator.api.call import Call
from coordinator.api.errors import NeedsProject
from coordinator.operations.accept import Requester
from coordinator.operations.engine import Engine
from coordinator.state import attachments, snapshots, volumes


def scope(call: Call) -> str | None:
    """The project that rows are looked up in; None for an administrator, who finds all."""
    return None if call.context.is_admin else call.context.project_id


def own_project(call: Call) -> str:
    """The project that something new belongs to; raises NeedsProject (400) for a scope without one."""
    if not call.context.project_id:
        raise NeedsProject
    return call.context.project_id


def requester(call: Call, project_id: str | None = None) -> Requester:
    """Who asks. `project_id` is that of the resource worked on, where it may be another's (an administrator's work)."""
    return Requester(
        project_id=project_id if project_id is not None else own_project(call),
        user_id=call.context.user_id,
        request_id=call.context.request_id,
        owner=call.services.get(Engine).owner,
    )


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


def target(row: Row[Any]) -> Mapping[str, Any]:
    """A row as policy rules look at it."""
    return {"project_id": row.project_id, "user_id": getattr(row, "user_id", None)}
