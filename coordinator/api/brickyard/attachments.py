"""Attachments that a host's agent makes and ends: attach volume V to host H."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import ColumnElement, Connection, Row

from agent.base.errors import NotFound
from coordinator.api.acting import owned_attachment, owned_volume, requester, target
from coordinator.api.brickyard.operations import OperationAnswer, view
from coordinator.api.brickyard.pages import PAGING, asked, next_marker, picked
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Time, Uuid
from coordinator.api.paging import flag
from coordinator.api.route import Resource, delete, get, post
from coordinator.operations.attach_host import accept_attach, accept_detach, detaching
from coordinator.operations.engine import Engine
from coordinator.operations.external_attachments import check_mode
from coordinator.state import site_lists
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.tables.attachments import attachments as table

_RULE = "brickyard:host_attachments:"
_FORCE = "volume_extension:volume_admin_actions:force_detach"


class AttachBody(Body):
    volume_id: Uuid
    host_id: Annotated[str, Field(min_length=1, max_length=63)]
    mode: Literal["rw", "ro"] = "rw"


class HostAttachmentAnswer(Answer):
    """`device` has `device` (decrypted where the volume is encrypted), `raw_device`, `raw` and `diskseq`.

    `transport` says how the host reaches the volume; null: it has it itself. `connection` is what it was told of it.
    """

    id: str
    volume_id: str
    project_id: str
    host_id: str
    mode: str
    status: str
    device: dict[str, Any] | None
    transport: str | None
    connection: dict[str, Any] | None
    attention: str | None
    attached_at: Time | None
    created_at: Time


class AttachAnswer(Answer):
    attachment: HostAttachmentAnswer
    operation: OperationAnswer


class DetachAnswer(Answer):
    operation: OperationAnswer


class HostAttachmentList(Answer):
    attachments: list[HostAttachmentAnswer]
    next_marker: str | None


def shown(row: Row[Any]) -> dict[str, Any]:
    """A host attachment as an answer."""
    fields = picked(row, "id", "volume_id", "project_id", "host_id", "device", "transport", "connection",
                    "attention", "created_at")  # fmt: skip
    return {**fields, "mode": row.attach_mode, "status": row.attach_status, "attached_at": row.attach_time}


async def attach(call: Call) -> dict[str, Any]:
    wanted = call.valid(AttachBody)

    def accept(conn: Connection) -> tuple[Operation, Row[Any]]:
        volume = owned_volume(conn, call, wanted.volume_id, f"{_RULE}create")
        check_mode(conn, volume.id, wanted.mode)
        who = requester(call, volume.project_id)
        return accept_attach(conn, who, volume.id, wanted.host_id, mode=wanted.mode)

    operation, row = await call.services.get(Engine).submit(accept)
    return {"attachment": shown(row), "operation": view(call, operation)}


async def detach(call: Call) -> dict[str, Any]:
    """Written as detached only on the host's word. Once more tells of the work that is doing it."""
    attachment_id, force = call.params["attachment_id"], flag(call, "force")

    def accept(conn: Connection) -> tuple[Operation, None]:
        row = owned_attachment(conn, call, attachment_id, f"{_RULE}delete")
        if force:
            call.require(_FORCE, target(row))
        return accept_detach(conn, requester(call, row.project_id), row.id, force=force), None

    try:
        operation, _ = await call.services.get(Engine).submit(accept)
    except TransitionRefused:
        known = await call.services.db.read(lambda conn: detaching(conn, attachment_id))
        if known is None:
            raise
        operation = known
    return {"operation": view(call, operation)}


async def listed(call: Call) -> dict[str, Any]:
    where: list[ColumnElement[bool]] = [
        table.c[name] == call.query[name] for name in ("volume_id", "host_id") if call.query.get(name)
    ]
    everywhere = call.context.is_admin and flag(call, "all_projects")
    project, page = None if everywhere else call.context.project_id, asked(call)
    rows = await call.services.db.read(lambda conn: site_lists.attachment_page(conn, project, where, page))
    return {"attachments": [shown(row) for row in rows], "next_marker": next_marker([row.id for row in rows], page)}


async def show(call: Call) -> dict[str, Any]:
    def read(conn: Connection) -> Row[Any]:
        row = owned_attachment(conn, call, call.params["attachment_id"], f"{_RULE}get")
        if row.owner != "agent":
            raise NotFound(noun="Host attachment", id=row.id)
        return row

    return shown(await call.services.db.read(read))


def resource() -> Resource:
    """The routes."""
    return Resource(
        "host_attachments",
        "Attachments of volumes to hosts, made and ended by the host's agent.",
        (
            post("", attach, f"{_RULE}create", "Attach a volume to a host.", body=AttachBody, answer=AttachAnswer,
                 status=202),
            get("", listed, f"{_RULE}get", "List host attachments.", answer=HostAttachmentList,
                query=(*PAGING, "volume_id", "host_id", "all_projects")),
            get("/{attachment_id}", show, f"{_RULE}get", "Show a host attachment.", answer=HostAttachmentAnswer,
                answer_key="attachment"),
            delete("/{attachment_id}", detach, f"{_RULE}delete", "Detach a volume from its host.",
                   answer=DetachAnswer, query=("force",)),
        ),
        prefix="/brickyard/v1/attachments",
    )  # fmt: skip
