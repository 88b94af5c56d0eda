"""delete_volume: the data on its host, then the row, the key and the claim."""

from __future__ import annotations

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester, accept
from coordinator.operations.transfer_volume import end_offer
from coordinator.operations.volume_calls import delete_call, volume_row
from coordinator.operations.workflow import Ended, JobStep, Workflow
from coordinator.scheduler.claims import release
from coordinator.state import image_cache, messages, snapshots, volumes
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import move, move_if


class VolumeHasSnapshots(TransitionRefused):
    code = "volume.has-snapshots"
    sentence = "Invalid volume: Volume {id} still has {count} dependent snapshots."
    hint = "Delete its snapshots first, or all together: openstack volume delete --cascade {id}."


def accept_delete(conn: Connection, requester: Requester, volume_id: str, *, force: bool = False) -> Operation:
    """Refused while it has snapshots or attachments, or while something is being made from it; with `force` an offer of
    it to another project ends."""
    if force:
        end_offer(conn, requester, volume_id)
    guards = (
        volumes.has_no_snapshots(volume_id),
        volumes.has_no_attachments(volume_id),
        volumes.is_no_source(volume_id=volume_id),
    )
    try:
        row = move(conn, "volume", volume_id, "delete_forced" if force else "delete", guards=guards)
    except TransitionRefused as refused:
        count = snapshots.count_of(conn, volume_id)
        if count:
            raise VolumeHasSnapshots(id=volume_id, count=count) from refused
        raise
    if not row.use_quota:
        image_cache.put(conn, volume_id, leaving=True)
    return accept(conn, requester, kind="delete_volume", resource_type="volume", resource_id=volume_id, args={})


def workflow(keys: KeyStore) -> Workflow:
    """Version 1 of the workflow."""
    return Workflow(
        kind="delete_volume",
        version=1,
        steps=(JobStep("remove", delete_call, gone_is_done=True),),
        finished=finished(keys),
        failed=_failed,
        attention=_attention,
    )


def finished(keys: KeyStore) -> Ended:
    """What is done when the data are gone: claim, key and row."""

    def end(conn: Connection, operation: Operation) -> None:
        row = volume_row(conn, operation)
        release(conn, row.pool_id, row.device_bytes or 0)
        if row.encryption_key_id is not None:
            keys.delete(conn, row.encryption_key_id)
        move_if(conn, "volume", row.id, "deleted", terminated_at=utcnow())
        if not row.use_quota:
            image_cache.drop(conn, row.id)

    return end


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    move_if(conn, "volume", operation.resource_id, "delete_failed", attention=str(error))
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, "delete_failed", attention=reason)
