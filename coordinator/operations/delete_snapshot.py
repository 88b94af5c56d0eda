"""delete_snapshot: the data on the volume's host, then the row and its key."""

from __future__ import annotations

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester, accept
from coordinator.operations.create_snapshot import remove_call
from coordinator.operations.workflow import JobStep, Workflow
from coordinator.state import messages, snapshots, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if


def accept_snapshot_delete(conn: Connection, requester: Requester, snapshot_id: str) -> Operation:
    """Refused while a volume is being made from it."""
    move(conn, "snapshot", snapshot_id, "delete", guards=(volumes.is_no_source(snapshot_id=snapshot_id),))
    return accept(conn, requester, kind="delete_snapshot", resource_type="snapshot", resource_id=snapshot_id, args={})


def workflow(keys: KeyStore) -> Workflow:
    """Version 1 of the workflow."""

    def finished(conn: Connection, operation: Operation) -> None:
        row = snapshots.get(conn, operation.resource_id)
        if row.encryption_key_id is not None:
            keys.delete(conn, row.encryption_key_id)
        move(conn, "snapshot", row.id, "deleted")

    return Workflow(
        kind="delete_snapshot",
        version=1,
        steps=(JobStep("remove", remove_call, gone_is_done=True),),
        finished=finished,
        failed=_failed,
        attention=_attention,
    )


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    move_if(conn, "snapshot", operation.resource_id, "delete_failed", attention=str(error))
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "snapshot", operation.resource_id, "delete_failed", attention=reason)
