"""Actions of snapshots: force delete, and the word of a compute service on one that it helps with."""

from __future__ import annotations

import re

from sqlalchemy import Connection

from coordinator.api.acting import end_work, owned_snapshot, requester
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Body, Key
from coordinator.api.route import Resource, action
from coordinator.operations.delete_snapshot import accept_snapshot_delete
from coordinator.operations.engine import Engine
from coordinator.operations.manage_snapshot import accept_unmanage
from coordinator.state import operations
from coordinator.state.operations import Operation

_PATH = "/snapshots/{snapshot_id}/action"
_FORCE = "volume_extension:snapshot_admin_actions:force_delete"
_UPDATE = "snapshot_extension:snapshot_actions:update_snapshot_status"
_UNMANAGE = "snapshot_extension:snapshot_unmanage"
_TOLD = {"creating": ("creating", "available", "error"), "deleting": ("deleting", "error_deleting")}
_PROGRESS = re.compile(r"\d{1,3}%?")


class SnapshotStatus(Body):
    status: Key
    progress: Key | None = None


async def force_delete(call: Call) -> None:
    """Whatever is at work on it is cancelled first."""
    snapshot_id = call.params["snapshot_id"]

    def accept(conn: Connection) -> tuple[Operation, None]:
        row = owned_snapshot(conn, call, snapshot_id, _FORCE)
        return accept_snapshot_delete(conn, requester(call, row.project_id), row.id), None

    await call.services.db.read(lambda conn: owned_snapshot(conn, call, snapshot_id, _FORCE))
    await end_work(call, snapshot_id)
    await call.services.get(Engine).submit(accept)


async def unmanage(call: Call) -> None:
    """The data stay beside the volume, under a name that they can be managed by again."""

    def accept(conn: Connection) -> tuple[Operation, None]:
        row = owned_snapshot(conn, call, call.params["snapshot_id"], _UNMANAGE)
        return accept_unmanage(conn, requester(call, row.project_id), row.id), None

    await call.services.get(Engine).submit(accept)


async def update_status(call: Call) -> None:
    """Accepted where it says what is so. Hosts report their own work here, so nobody else can end it."""
    body = call.valid(SnapshotStatus)
    if body.progress is not None and not _PROGRESS.fullmatch(body.progress):
        raise BadRequest(reason="progress must be an integer percentage")

    def check(conn: Connection) -> None:
        row = owned_snapshot(conn, call, call.params["snapshot_id"], _UPDATE)
        if row.status not in _TOLD:
            raise BadRequest(reason=f"Snapshot status {row.status} not allowed for update_snapshot_status")
        if body.status not in _TOLD[row.status]:
            raise BadRequest(
                reason=f"Provided snapshot status {body.status} not allowed for snapshot with status {row.status}."
            )
        if body.status != row.status:
            working = operations.active_of(conn, row.id)
            by = f"operation {working.id} ({working.kind})" if working is not None else "the host that works on it"
            raise BadRequest(reason=f"Snapshot {row.id} is {row.status}: {by} will say how that ended.")

    await call.services.db.read(check)


def resource() -> Resource:
    """The routes."""
    return Resource(
        "snapshot_actions",
        "Actions of snapshots.",
        (
            action(_PATH, "os-force_delete", force_delete, _FORCE,
                   "Delete a snapshot; work on it is cancelled first."),
            action(_PATH, "os-unmanage", unmanage, _UNMANAGE, "Let a snapshot go with its data."),
            action(_PATH, "os-update_snapshot_status", update_status, _UPDATE,
                   "Say how far a snapshot is; refused where it contradicts the host that makes it.",
                   body=SnapshotStatus),
        ),
    )  # fmt: skip
