"""delete_volume, version 2: the snapshots first, then the volume, as one operation.

All of them are `deleting` from the moment of acceptance. A snapshot that can not be removed keeps the volume: the
snapshot ends in error_deleting, the volume in the status it had, and what was removed stays removed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from agent.base.errors import BrickyardError, Permanent
from agent.wire.jobs import SnapshotsDelete
from coordinator.keys.store import KeyStore
from coordinator.operations import delete_volume
from coordinator.operations.accept import Requester, accept
from coordinator.operations.transfer_volume import end_offer
from coordinator.operations.volume_calls import delete_call, volume_row
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, Workflow
from coordinator.state import messages, outward, snapshots, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of

_BEFORE_VOLUME = frozenset({"snapshots", "settle", "check"})


class SnapshotsKept(Permanent):
    code = "volume.snapshots-kept"
    status = 409
    sentence = "Volume {id} was kept, since {count} of its snapshots could not be deleted: {reasons}."
    hint = "Mend that, then delete the volume again."


class ForeignSnapshots(Permanent):
    code = "volume.foreign-snapshots"
    status = 400
    sentence = "Invalid volume: Volume {id} has snapshots of other projects."
    hint = "An administrator can delete it with them."


def accept_cascade(conn: Connection, requester: Requester, volume_id: str, *, force: bool, admin: bool) -> Operation:
    """The volume and all its snapshots begin to go away, or none does.

    Raises TransitionRefused, ForeignSnapshots.
    """
    found = snapshots.of_volume(conn, volume_id)
    if not found:
        return delete_volume.accept_delete(conn, requester, volume_id, force=force)
    if not admin and any(row.project_id != requester.project_id for row in found):
        raise ForeignSnapshots(id=volume_id)
    if force:
        end_offer(conn, requester, volume_id)
    event = "delete_cascade_forced" if force else "delete_cascade"
    guards = (volumes.has_no_attachments(volume_id), volumes.is_no_source(volume_id=volume_id))
    move(conn, "volume", volume_id, event, guards=guards)
    for row in found:
        move(conn, "snapshot", row.id, "delete", guards=(volumes.is_no_source(snapshot_id=row.id),))
    args = {"snapshots": [row.id for row in found]}
    return accept(
        conn, requester, kind="delete_volume", version=2, resource_type="volume", resource_id=volume_id, args=args
    )


def workflow(keys: KeyStore) -> Workflow:
    """Version 2 of delete_volume."""

    def settle(conn: Connection, operation: Operation) -> dict[str, Any]:
        return _settle(conn, keys, operation)

    return Workflow(
        kind="delete_volume",
        version=2,
        steps=(
            JobStep("snapshots", _snapshots, gone_is_done=True),
            LocalStep("settle", settle),
            LocalStep("check", _check),
            JobStep("remove", delete_call, gone_is_done=True),
        ),
        finished=delete_volume.finished(keys),
        failed=_failed,
        attention=_attention,
    )


def _snapshots(conn: Connection, operation: Operation) -> JobCall | None:
    row = volume_row(conn, operation)
    if row.host_id is None:
        return None
    return JobCall(
        row.host_id,
        SnapshotsDelete(backend=backend_of(row), snapshot_ids=operation.args["snapshots"]),
    )


def _settle(conn: Connection, keys: KeyStore, operation: Operation) -> dict[str, Any]:
    told = operation.results.get("snapshots") or {"deleted": operation.args["snapshots"], "failed": {}}
    for snapshot_id in told["deleted"]:
        row = move_if(conn, "snapshot", snapshot_id, "deleted")
        if row is not None and row.encryption_key_id is not None:
            keys.delete(conn, row.encryption_key_id)
    return {"failed": dict(told["failed"])}


def _check(conn: Connection, operation: Operation) -> None:
    failed = operation.results["settle"]["failed"]
    if failed:
        reasons = "; ".join(f"{snapshot_id}: {reason.rstrip('.')}" for snapshot_id, reason in failed.items())
        row = volume_row(conn, operation)
        told = outward.without(reasons, (row.host_id, row.backend, row.pool))
        raise SnapshotsKept(id=operation.resource_id, count=len(failed), reasons=reasons, reasons_told=told)


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    kept = operation.step in _BEFORE_VOLUME
    for snapshot_id in operation.args["snapshots"]:
        move_if(conn, "snapshot", snapshot_id, "delete_failed", attention=str(error))
    move_if(conn, "volume", operation.resource_id, "delete_kept" if kept else "delete_failed", attention=str(error))
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, "delete_failed", attention=reason)
