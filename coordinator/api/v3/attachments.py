"""Attachments (3.27): reserve a volume, say who uses it, complete, end.

What is made here is kept by the caller (owner `external`); what a host's agent keeps is shown here, and made and ended
under `/brickyard/v1/attachments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import Connection, Row

from coordinator.api.acting import carried_out, owned_attachment, owned_volume, owner_of, requester, target, vouched
from coordinator.api.call import Call
from coordinator.api.conditions import FEW, MANY, NO_INDEX, exact, ids
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Since, Time, Uuid
from coordinator.api.lists import Listing, ask
from coordinator.api.route import Resource, action, delete, get, post, put
from coordinator.api.v3.volume_view import Link
from coordinator.keys.store import KeyStore
from coordinator.operations import connection_info, external_attachments
from coordinator.operations.external_attachments import Wanted
from coordinator.state import attachments, snapshot_lists
from coordinator.state.operations import Operation
from coordinator.state.tables.attachments import attachments as table

_SINCE = 27
_COMPLETE_SINCE = 44
_EXACT = {
    "volume_id": FEW, "instance_id": FEW, "attach_status": MANY, "attached_host": NO_INDEX, "attach_mode": NO_INDEX,
}  # fmt: skip
_SORTED = ("id", "volume_id", "attach_status", "created_at", "updated_at", "instance_id", "attached_host", "mountpoint",
           "attach_mode")  # fmt: skip
ATTACHMENTS = Listing(
    "attachment",
    {
        **{name: exact(table.c[name], narrows=narrows) for name, narrows in _EXACT.items()},
        "status": exact(table.c.attach_status, narrows=MANY),
        "id": ids(table.c.id),
    },
    {name: name for name in _SORTED} | {"status": "attach_status"},
    "attachments_links",
    early=("volume_id", "status", "instance_id", "attach_status"),
)


class CreateAttachment(Body):
    volume_uuid: Uuid
    instance_uuid: Uuid | None = None
    connector: dict[str, Any] | None = None
    mode: Annotated[Literal["rw", "ro", "null"] | None, Since(54)] = None


class UpdateAttachment(Body):
    connector: dict[str, Any]


class AttachmentAnswer(Answer):
    id: str
    status: str
    instance: str | None
    volume_id: str
    attach_mode: str | None = None
    attached_at: Time | None = None
    detached_at: Time | None = None
    connection_info: dict[str, Any] = Field(default_factory=dict)


class AttachmentList(Answer):
    attachments: list[AttachmentAnswer]
    attachments_links: list[Link] = Field(default_factory=list)


def summarized(row: Row[Any]) -> dict[str, Any]:
    return {"id": row.id, "status": row.attach_status, "instance": row.instance_id, "volume_id": row.volume_id}


def detailed(row: Row[Any]) -> dict[str, Any]:
    return {
        **summarized(row),
        "attach_mode": row.attach_mode,
        "attached_at": row.attach_time,
        "detached_at": row.detach_time,
        "connection_info": row.connection_info or {},
    }


async def create(call: Call) -> dict[str, Any]:
    body = call.valid(CreateAttachment)
    mode = body.mode if body.mode in {"rw", "ro"} else "rw"

    def change(conn: Connection) -> tuple[Row[Any], Operation | None]:
        volume = owned_volume(conn, call, body.volume_uuid, "volume:attachment_create")
        if volume.multiattach and volume.bootable and volume.status == "in-use":
            call.require("volume:multiattach_bootable_volume", target(volume))
        owner = owner_of(call, body.instance_uuid)
        wanted = Wanted(volume.id, body.instance_uuid, body.connector or None, str(mode), owner)
        return external_attachments.reserve(conn, requester(call, volume.project_id), volume, wanted)

    row, begun = await call.services.db.write(change)
    return await _reached(call, row, begun, "volume:attachment_create")


async def _reached(call: Call, row: Row[Any], begun: Operation | None, rule: str) -> dict[str, Any]:
    """The attachment once its volume is offered; at once where there is nothing to wait for and no secret to tell."""
    if begun is None and row.transport is None:
        return detailed(row)
    await carried_out(call, [begun])
    return await _shown(call, row.id, rule)


async def _shown(call: Call, attachment_id: str, rule: str) -> dict[str, Any]:
    """The attachment with all that its consumer needs, the secret too."""
    keys = call.services.get(KeyStore)

    def read(conn: Connection) -> tuple[Row[Any], dict[str, Any] | None]:
        row = owned_attachment(conn, call, attachment_id, rule)
        needs_secret = (row.connection_info or {}).get("auth_method") is not None
        return row, connection_info.with_secret(conn, keys, row.connection_info) if needs_secret else None

    row, info = await call.services.db.read(read)
    return detailed(row) if info is None else {**detailed(row), "connection_info": info}


async def update(call: Call) -> dict[str, Any]:
    connector = call.valid(UpdateAttachment).connector
    if not connector:
        raise BadRequest(reason="Invalid input for field/attribute connector. Value: {}. {} does not have enough "
                         "properties")  # fmt: skip

    rule = "volume:attachment_update"

    def change(conn: Connection) -> tuple[Row[Any], Operation | None]:
        row = owned_attachment(conn, call, call.params["attachment_id"], rule)
        return external_attachments.connect(conn, requester(call, row.project_id), row, connector)

    row, begun = await call.services.db.write(change)
    return await _reached(call, row, begun, rule)


async def complete(call: Call) -> None:
    def change(conn: Connection) -> None:
        row = owned_attachment(conn, call, call.params["attachment_id"], "volume:attachment_complete")
        external_attachments.complete(conn, requester(call, row.project_id), row)

    await call.services.db.write(change)


async def remove(call: Call) -> dict[str, Any]:
    """End an attachment; answers with those that the volume still has."""
    attachment_id, rule = call.params["attachment_id"], "volume:attachment_delete"
    allowed = await vouched(call, lambda conn: [owned_attachment(conn, call, attachment_id, rule)])

    def change(conn: Connection) -> tuple[str, Operation | None, Sequence[Row[Any]]]:
        row = owned_attachment(conn, call, attachment_id, rule)
        who = requester(call, row.project_id)
        begun = external_attachments.end(conn, who, row, vouched=allowed)
        return row.volume_id, begun, attachments.of_volume(conn, row.volume_id)

    volume_id, begun, left = await call.services.db.write(change)
    if begun is not None:
        await carried_out(call, [begun])
        left = await call.services.db.read(lambda conn: attachments.of_volume(conn, volume_id))
    return {"attachments": [summarized(row) for row in left]}


async def listed(call: Call) -> dict[str, Any]:
    return await _list(call, with_details=False)


async def listed_in_detail(call: Call) -> dict[str, Any]:
    return await _list(call, with_details=True)


async def _list(call: Call, *, with_details: bool) -> dict[str, Any]:
    asked = ask(call, ATTACHMENTS)
    rows = await call.services.db.read(
        lambda conn: (
            snapshot_lists.attachment_page(conn, asked.project, asked.where, asked.page) if asked.page.limit else []
        )
    )
    view = detailed if with_details else summarized
    return asked.answer(call, "attachments", [view(row) for row in rows])


async def show(call: Call) -> dict[str, Any]:
    return await _shown(call, call.params["attachment_id"], "volume:get")


def resource() -> Resource:
    """The routes."""
    return Resource(
        "attachments",
        "Attachments of volumes to servers and hosts.",
        (
            post("/attachments", create, "volume:attachment_create", "Reserve a volume; with a connector, connect.",
                 body=CreateAttachment, body_key="attachment", answer=AttachmentAnswer, answer_key="attachment",
                 since=_SINCE),
            get("/attachments", listed, "volume:get_all", "List attachments.", answer=AttachmentList,
                **ATTACHMENTS.described, since=_SINCE),
            get("/attachments/detail", listed_in_detail, "volume:get_all", "List attachments in detail.",
                answer=AttachmentList, **ATTACHMENTS.described, since=_SINCE),
            get("/attachments/{attachment_id}", show, "volume:get", "Show an attachment.", answer=AttachmentAnswer,
                answer_key="attachment", since=_SINCE),
            put("/attachments/{attachment_id}", update, "volume:attachment_update", "Say who uses the volume.",
                body=UpdateAttachment, body_key="attachment", answer=AttachmentAnswer, answer_key="attachment",
                since=_SINCE),
            delete("/attachments/{attachment_id}", remove, "volume:attachment_delete", "End an attachment.",
                   answer=AttachmentList, since=_SINCE, status=200),
            action("/attachments/{attachment_id}/action", "os-complete", complete, "volume:attachment_complete",
                   "Say that the volume is in use.", since=_COMPLETE_SINCE, status=204),
        ),
    )  # fmt: skip
