"""revert_volume: the volume's latest snapshot becomes its content again, at once or not at all.

The host makes the content whole beside the volume and then puts it in its place, so until then the volume is as it
was; after a failure it is available again. Only where nobody can say how far the host came it ends in error.
"""

from __future__ import annotations

from sqlalchemy import Connection

from agent.base.errors import BrickyardError, Invalid, Permanent
from agent.wire.jobs import VolumeRevert
from coordinator.operations import sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.errors import UnknownHost, WaitedTooLong
from coordinator.operations.volume_calls import volume_row
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.state import messages, snapshots, volumes
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of


class NotLatest(Permanent):
    code = "revert.not-latest"
    status = 400
    sentence = "Specified snapshot {snapshot} is not the latest one of volume {volume}, which is {latest}."
    hint = (
        "Make a new volume of it: openstack volume create --snapshot {snapshot} NAME; or delete the later ones first."
    )


class SizeChanged(Permanent):
    code = "revert.size-changed"
    status = 400
    sentence = "Can't revert volume {volume} to its latest snapshot {snapshot}: it has {size} GiB, the snapshot {was}."
    hint = "A volume that was extended keeps its size; make a new volume of the snapshot."


def accept_revert(conn: Connection, requester: Requester, volume_id: str, snapshot_id: str) -> Operation:
    """Raises NotLatest, SizeChanged, Invalid (400), TransitionRefused (409)."""
    volume = volumes.get(conn, volume_id)
    taken = snapshots.of_volume(conn, volume_id)
    # Snapshots may have stayed with who had the volume before: what they hold is not for its project.
    mine = [row for row in taken if row.project_id == volume.project_id]
    chosen = next((row for row in mine if row.id == snapshot_id), None)
    if chosen is None:
        raise Invalid(reason=f"Invalid snapshot: snapshot {snapshot_id} is not one of volume {volume_id}.")
    if chosen.id != taken[-1].id:
        latest = taken[-1].id if taken[-1] in mine else "one of another project"
        raise NotLatest(snapshot=snapshot_id, volume=volume_id, latest=latest)
    if chosen.volume_size != volume.size:
        raise SizeChanged(volume=volume_id, snapshot=snapshot_id, size=volume.size, was=chosen.volume_size)
    try:
        guards = (volumes.has_no_attachments(volume_id), volumes.is_no_source(volume_id=volume_id))
        move(conn, "volume", volume_id, "revert", guards=guards)
        move(conn, "snapshot", snapshot_id, "revert")
    except TransitionRefused as refused:
        refused.status = 409
        raise
    args = {"snapshot_id": snapshot_id}
    return accept(conn, requester, kind="revert_volume", resource_type="volume", resource_id=volume_id, args=args)


def workflow() -> Workflow:
    """Version 1 of the workflow."""
    return Workflow(
        kind="revert_volume",
        version=1,
        steps=(JobStep("revert", _revert),),
        finished=_finished,
        failed=_failed,
        attention=_attention,
    )


def _revert(conn: Connection, operation: Operation) -> JobCall | None:
    row = volume_row(conn, operation)
    args = VolumeRevert(
        backend=backend_of(row),
        volume_id=row.id,
        snapshot_id=operation.args["snapshot_id"],
        size_bytes=row.usable_bytes or sizes.usable_bytes(row.size),
    )
    return JobCall(row.host_id, args)


def _finished(conn: Connection, operation: Operation) -> None:
    move(conn, "volume", operation.resource_id, "reverted", attention=None)
    move_if(conn, "snapshot", operation.args["snapshot_id"], "reverted")


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    unclear = isinstance(error, (WaitedTooLong, UnknownHost))
    event = "revert_unclear" if unclear else "reverted"
    move_if(conn, "volume", operation.resource_id, event, attention=str(error) if unclear else None)
    move_if(conn, "snapshot", operation.args["snapshot_id"], "reverted")
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, "revert_unclear", attention=reason)
    move_if(conn, "snapshot", operation.args["snapshot_id"], "reverted")
