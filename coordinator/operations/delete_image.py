"""delete_image: the bytes on the store, then the row, and its secret where its owner said so."""

from __future__ import annotations

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.wire.jobs import ImageDelete
from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.images.info import encryption
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester, accept
from coordinator.operations.image_cache import image_left
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.state import enrolment, messages, operations
from coordinator.state import images as rows
from coordinator.state import keys as key_rows
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if


def accept_delete(conn: Connection, requester: Requester, caller: Caller, image_id: str) -> tuple[Operation, bool]:
    """(operation, whether it is a new one): a repeat joins the deletion that runs.

    Raises NoSuchImage, ImageNotYours, ImageProtected, TransitionRefused (409).
    """
    row = catalog.deletable(conn, caller, image_id).row
    running = operations.active_of(conn, image_id) if row.status == "deleting" else None
    if running is not None and running.kind == "delete_image":
        return running, False
    try:
        move(conn, "image", image_id, "delete")
    except TransitionRefused as refused:
        refused.status = 409
        raise
    made = accept(conn, requester, kind="delete_image", resource_type="image", resource_id=image_id, args={})
    return made, True


def workflow(keys: KeyStore) -> Workflow:
    """Version 1 of the workflow."""

    def finished(conn: Connection, operation: Operation) -> None:
        image_id = operation.resource_id
        row = move_if(conn, "image", image_id, "deleted")
        image_left(conn, operation.request_id, image_id)
        wanted = encryption(rows.properties(conn, [image_id])[image_id])
        if row is None or wanted.key_id is None or not wanted.delete_key:
            return
        key = key_rows.show(conn, wanted.key_id)
        if key is not None and key.project_id == row.owner and key_rows.used_by(conn, wanted.key_id) is None:
            keys.delete(conn, wanted.key_id)

    return Workflow(
        kind="delete_image",
        version=1,
        steps=(JobStep("erase", _erase, gone_is_done=True),),
        finished=finished,
        failed=_failed,
        attention=_attention,
    )


def _erase(conn: Connection, operation: Operation) -> JobCall | None:
    row = rows.with_any_state(conn, operation.resource_id)
    if row is None or row.host_id is None or enrolment.host(conn, row.host_id) is None:
        return None
    return JobCall(row.host_id, ImageDelete(image_id=row.id))


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    move_if(conn, "image", operation.resource_id, "delete_failed", attention=str(error))
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "image", operation.resource_id, "delete_failed", attention=reason)
