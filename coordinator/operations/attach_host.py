"""attach_host and detach_host: attachments that a host's agent keeps (owner `agent`)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Conflict
from agent.base.ids import new_id
from agent.wire.jobs import AttachmentApply, Generation, WantedAttachment
from agent.wire.jobs import Connection as Reached
from coordinator.keys.store import KeyStore
from coordinator.operations import transports
from coordinator.operations.accept import Requester, accept
from coordinator.operations.exports import AGAIN_ON, chap_secret, connection_of, export_call
from coordinator.operations.settling import settle
from coordinator.operations.volume_calls import luks_format, volume_secret
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.state import attachments, clusters, fleet, messages, operations, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import enter, move, move_if
from coordinator.state.volumes import backend_of


class NotOurs(Conflict):
    code = "attachment.not-ours"
    sentence = "Attachment {id} is kept by {owner}, not by a host of Brickyard."
    hint = "Detach it with the service that made it."


def accept_attach(
    conn: Connection, requester: Requester, volume_id: str, host_id: str, *, mode: str = "rw"
) -> tuple[Operation, Row[Any]]:
    """The volume must be free, and a transport must reach it from the host. TransitionRefused, NoTransport."""
    clusters.bring(conn, volume_id, host_id)
    volume = volumes.get(conn, volume_id)
    host = fleet.get(conn, host_id)
    transport = transports.choose(conn, volume, host, mode)
    move(conn, "volume", volume_id, "host_attach", guards=(volumes.has_no_attachments(volume_id),))
    attachment = enter(
        conn,
        "attachment",
        "host_attach",
        id=new_id(),
        volume_id=volume_id,
        project_id=volume.project_id,
        owner="agent",
        host_id=host_id,
        attached_host=host_id,
        attach_mode=mode,
        transport=transport.protocol if transport is not None else None,
        initiator=transport.initiator if transport is not None else None,
    )
    generations = attachments.next_generations(conn, volume_id, host_id, 2)
    args = {
        "attachment_id": attachment.id,
        "volume_id": volume_id,
        "host_id": host_id,
        "generations": [generation.model_dump() for generation in generations],
    }
    operation = accept(
        conn, requester, kind="attach_host", version=2, resource_type="volume", resource_id=volume_id, args=args
    )
    return operation, attachment


def accept_detach(conn: Connection, requester: Requester, attachment_id: str, *, force: bool = False) -> Operation:
    """Detach what a host's agent keeps; written as detached only on the host's word.

    With `force` the host cuts off whoever has the device open.
    """
    attachment = attachments.get(conn, attachment_id)
    if attachment.owner != "agent":
        raise NotOurs(id=attachment_id, owner=attachment.owner)
    move(conn, "attachment", attachment_id, "detach")
    move(conn, "volume", attachment.volume_id, "host_detach")
    generations = attachments.next_generations(conn, attachment.volume_id, attachment.host_id, 1)
    args = {
        "attachment_id": attachment_id,
        "volume_id": attachment.volume_id,
        "host_id": attachment.host_id,
        "generations": [generation.model_dump() for generation in generations],
    }
    if force:
        args["force"] = True
    return accept(
        conn, requester, kind="detach_host", version=2, resource_type="volume", resource_id=attachment.volume_id,
        args=args,
    )  # fmt: skip


def detaching(conn: Connection, attachment_id: str) -> Operation | None:
    """The work that is ending this attachment now. Raises NotFound when it has ended."""
    attachment = attachments.get(conn, attachment_id)
    active = operations.listing(conn, active=True, resource_id=attachment.volume_id)
    mine = (one for one in active if one.kind == "detach_host" and one.args.get("attachment_id") == attachment_id)
    return next(mine, None)


def attach_workflow(keys: KeyStore) -> Workflow:
    """Version 2 of attach_host: the volume's host offers it, then the consumer's host attaches it."""

    def offer(conn: Connection, operation: Operation) -> JobCall | None:
        return _offer(conn, keys, operation, wanted=True)

    def withdraw(conn: Connection, operation: Operation) -> JobCall | None:
        return _offer(conn, keys, operation, wanted=False)

    def apply(conn: Connection, operation: Operation) -> JobCall:
        return _apply(conn, keys, operation, generation=0, wanted=True)

    def take_back(conn: Connection, operation: Operation) -> JobCall:
        return _apply(conn, keys, operation, generation=1, wanted=False)

    return Workflow(
        kind="attach_host",
        version=2,
        steps=(
            JobStep("export", offer, undo=withdraw, again_on=AGAIN_ON, pinned=True),
            JobStep("apply", apply, undo=take_back),
        ),
        finished=_attached,
        failed=_attach_failed,
        attention=_attach_unclear,
    )


def detach_workflow(keys: KeyStore) -> Workflow:
    """Version 2 of detach_host: the export ends only after the consumer's host said that nothing is left there."""

    def apply(conn: Connection, operation: Operation) -> JobCall:
        return _apply(conn, keys, operation, generation=0, wanted=False)

    def withdraw(conn: Connection, operation: Operation) -> JobCall | None:
        return _offer(conn, keys, operation, wanted=False)

    return Workflow(
        kind="detach_host",
        version=2,
        steps=(
            JobStep("apply", apply, gone_is_done=True),
            JobStep("unexport", withdraw, again_on=AGAIN_ON, pinned=True, gone_is_done=True),
        ),
        finished=_detached,
        failed=_detach_failed,
        attention=_detach_unclear,
    )


def attach_workflow_v1(keys: KeyStore) -> Workflow:
    """Version 1 of attach_host."""

    def apply(conn: Connection, operation: Operation) -> JobCall:
        return _apply(conn, keys, operation, generation=0, wanted=True)

    def take_back(conn: Connection, operation: Operation) -> JobCall:
        return _apply(conn, keys, operation, generation=1, wanted=False)

    return Workflow(
        kind="attach_host",
        version=1,
        steps=(JobStep("apply", apply, undo=take_back),),
        finished=_attached,
        failed=_attach_failed,
        attention=_attach_unclear,
    )


def detach_workflow_v1(keys: KeyStore) -> Workflow:
    """Version 1 of detach_host."""

    def apply(conn: Connection, operation: Operation) -> JobCall:
        return _apply(conn, keys, operation, generation=0, wanted=False)

    return Workflow(
        kind="detach_host",
        version=1,
        steps=(JobStep("apply", apply, gone_is_done=True),),
        finished=_detached,
        failed=_detach_failed,
        attention=_detach_unclear,
    )


def _offer(conn: Connection, keys: KeyStore, operation: Operation, *, wanted: bool) -> JobCall | None:
    """None where no transport is needed: the consumer's host has the volume itself."""
    attachment = attachments.get(conn, operation.args["attachment_id"])
    if attachment.transport is None:
        return None
    volume = volumes.get(conn, operation.args["volume_id"])
    return export_call(conn, keys, volume, without=None if wanted else attachment.id)


def _apply(conn: Connection, keys: KeyStore, operation: Operation, *, generation: int, wanted: bool) -> JobCall:
    args = operation.args
    volume = volumes.get(conn, args["volume_id"])
    others = [row for row in attachments.of_host(conn, volume.id, args["host_id"]) if row.id != args["attachment_id"]]
    kept = [row for row in others if row.attach_status == "attached"]
    mine = [attachments.get(conn, args["attachment_id"])] if wanted else []
    job = AttachmentApply(
        backend=backend_of(volume),
        volume_id=volume.id,
        generation=Generation.model_validate(args["generations"][generation]),
        wanted=tuple(
            WantedAttachment(attachment_id=row.id, mode="ro" if row.attach_mode == "ro" else "rw")
            for row in (*kept, *mine)
        ),
        encryption=luks_format(volume),
        connection=_connection(operation, kept),
        force=args.get("force", False),
    )
    secrets = volume_secret(conn, keys, volume) if job.wanted else {}
    if job.wanted and job.connection is not None and job.connection.auth == "chap":
        secrets["chap"] = chap_secret(conn, keys, job.connection.username)
    return JobCall(args["host_id"], job, secrets)


def _connection(operation: Operation, kept: list[Row[Any]]) -> Reached | None:
    """From the export of this operation, else as it was when another attachment of this host was made."""
    made = connection_of(operation, "export", operation.args["attachment_id"])
    if made is not None:
        return made
    stored = next((row.connection for row in kept if row.connection is not None), None)
    return Reached.model_validate(stored) if stored is not None else None


def _attached(conn: Connection, operation: Operation) -> None:
    attachment_id = operation.args["attachment_id"]
    applied = operation.results["apply"]["attached"]
    device = next(row for row in applied if row["attachment_id"] == attachment_id)
    made = connection_of(operation, "export", attachment_id)
    reached = made.model_dump(mode="json") if made is not None else None
    move(conn, "attachment", attachment_id, "host_attached", device=device, attach_time=utcnow(),
         mountpoint=device["device"], connection=reached)  # fmt: skip
    settle(conn, operation.resource_id)


def _attach_failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    move_if(conn, "attachment", operation.args["attachment_id"], "gone")
    settle(conn, operation.resource_id)
    messages.record(conn, operation, error)


def _attach_unclear(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "attachment", operation.args["attachment_id"], "host_attach_failed", attention=reason)
    if all(row.attach_status == "error_attaching" for row in settle(conn, operation.resource_id)):
        move_if(conn, "volume", operation.resource_id, "host_attach_failed")
    volumes.set_values(conn, operation.resource_id, attention=reason)


def _detached(conn: Connection, operation: Operation) -> None:
    move_if(conn, "attachment", operation.args["attachment_id"], "gone", detach_time=utcnow())
    settle(conn, operation.resource_id)
    clusters.spread_idle(conn, operation.resource_id)  # who served it may be the dead host that it was attached to


def _detach_failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    _still_there(conn, operation, str(error))
    messages.record(conn, operation, error)


def _detach_unclear(conn: Connection, operation: Operation, reason: str) -> None:
    _still_there(conn, operation, reason)
    volumes.set_values(conn, operation.resource_id, attention=reason)


def _still_there(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "attachment", operation.args["attachment_id"], "detach_failed", attention=reason)
    settle(conn, operation.resource_id)
    move_if(conn, "volume", operation.resource_id, "host_detach_failed")
