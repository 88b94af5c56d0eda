"""connect_volume and disconnect_volume: a volume is offered to a consumer that is no host of ours, and cut off again.

The volume's host is always told the complete set of its consumers, so one more or one less is the same job. What is
cut off is out of every set from the moment of acceptance (`detaching`), also of those that others ask for meanwhile.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from coordinator.keys.store import KeyStore
from coordinator.operations import connection_info
from coordinator.operations.accept import Requester, accept
from coordinator.operations.exports import AGAIN_ON, connection_of, export_call
from coordinator.operations.settling import settle
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.state import attachments, events, messages, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import move, move_if

CUT: dict[str, Any] = {
    "connection_info": None,
    "connector": None,
    "transport": None,
    "initiator": None,
    "connection": None,
}


def accept_connect(conn: Connection, requester: Requester, attachment: Row[Any], *, only_for_this: bool) -> Operation:
    """The attachment names its transport already. `only_for_this`: a failure leaves no attachment behind."""
    args = {"volume_id": attachment.volume_id, "only_for_this": only_for_this}
    return _accept(conn, requester, "connect_volume", attachment.id, args)


def accept_disconnect(conn: Connection, requester: Requester, attachment: Row[Any], *, keep: bool) -> Operation:
    """Cut it off. `keep`: the attachment stays, without a connection; else it ends with the host's word.

    Raises TransitionRefused where that is going on.
    """
    if keep:
        move(conn, "attachment", attachment.id, "connection_changed", **CUT)
    else:
        move(conn, "attachment", attachment.id, "detach")
    args = {"volume_id": attachment.volume_id, "keep": keep}
    return _accept(conn, requester, "disconnect_volume", attachment.id, args)


def _accept(conn: Connection, requester: Requester, kind: str, attachment_id: str, args: dict[str, Any]) -> Operation:
    return accept(conn, requester, kind=kind, resource_type="attachment", resource_id=attachment_id, args=args)


def connect_workflow(keys: KeyStore) -> Workflow:
    """Version 1 of connect_volume."""

    def offer(conn: Connection, operation: Operation) -> JobCall | None:
        return export_call(conn, keys, volumes.get(conn, operation.args["volume_id"]))

    def withdraw(conn: Connection, operation: Operation) -> JobCall | None:
        volume = volumes.get(conn, operation.args["volume_id"])
        return export_call(conn, keys, volume, without=operation.resource_id)

    return Workflow(
        kind="connect_volume",
        version=1,
        steps=(JobStep("export", offer, undo=withdraw, again_on=AGAIN_ON, pinned=True),),
        finished=_connected,
        failed=_not_connected,
        attention=lambda conn, operation, reason: attachments.set_values(conn, operation.resource_id, attention=reason),
    )


def _connected(conn: Connection, operation: Operation) -> None:
    attachment_id = operation.resource_id
    row, reached = attachments.find(conn, attachment_id), connection_of(operation, "export", attachment_id)
    if row is None or reached is None:
        return
    info = connection_info.remote(conn, volumes.get(conn, row.volume_id), row, reached)
    stored = reached.model_dump(mode="json")
    move_if(conn, "attachment", row.id, "connection_changed", connection=stored, connection_info=info, attention=None)


def _not_connected(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    if operation.args["only_for_this"]:
        move_if(conn, "attachment", operation.resource_id, "gone", detach_time=utcnow())
    else:
        move_if(conn, "attachment", operation.resource_id, "connect_failed", attention=str(error), **CUT)
    settle(conn, operation.args["volume_id"])
    messages.record(conn, operation, error)


def disconnect_workflow(keys: KeyStore) -> Workflow:
    """Version 1 of disconnect_volume."""

    def withdraw(conn: Connection, operation: Operation) -> JobCall | None:
        volume = volumes.get(conn, operation.args["volume_id"])
        return export_call(conn, keys, volume, without=operation.resource_id)

    return Workflow(
        kind="disconnect_volume",
        version=1,
        steps=(JobStep("unexport", withdraw, again_on=AGAIN_ON, pinned=True, gone_is_done=True),),
        finished=_disconnected,
        failed=_not_disconnected,
        attention=_stays,
    )


def _disconnected(conn: Connection, operation: Operation) -> None:
    if not operation.args["keep"]:
        move_if(conn, "attachment", operation.resource_id, "gone", detach_time=utcnow())
    settle(conn, operation.args["volume_id"])
    if not operation.args["keep"]:
        events.record(conn, operation, "detach_volume.end", {})


def _not_disconnected(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    _stays(conn, operation, str(error))
    messages.record(conn, operation, error)


def _stays(conn: Connection, operation: Operation, reason: str) -> None:
    """It is still offered: the attachment says so, and ending it again tries again."""
    move_if(conn, "attachment", operation.resource_id, "detach_failed", attention=reason)
    settle(conn, operation.args["volume_id"])
