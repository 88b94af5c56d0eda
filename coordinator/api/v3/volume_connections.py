"""Actions of volumes by which Nova and older clients attach: reserve, connect, attach, and the way back."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, Row

from coordinator.api.acting import carried_out, owned_volume, owner_of, requester, vouched
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Name, Uuid
from coordinator.api.route import Resource, action
from coordinator.keys.store import KeyStore
from coordinator.operations import connection_info, older_attach
from coordinator.operations.external_attachments import Owner
from coordinator.operations.older_attach import Target
from coordinator.state import attachments, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move

_PATH = "/volumes/{volume_id}/action"
_ACTIONS = "volume_extension:volume_actions:"
_ADMIN = "volume_extension:volume_admin_actions:"
_ATTRIBUTES = ("driver_volume_type",)


class ConnectionBody(Body):
    connector: dict[str, Any]


class TerminateBody(Body):
    """Without a connector (null) every connection is cut."""

    connector: dict[str, Any] | None


class AttachBody(Body):
    instance_uuid: Uuid | None = None
    host_name: Name | None = None
    mountpoint: Name
    mode: Literal["rw", "ro"] | None = None


class DetachBody(Body):
    attachment_id: Uuid | None = None


class ForceDetachBody(Body):
    attachment_id: Uuid | None = None
    connector: dict[str, Any] | None = None


class ConnectionAnswer(Answer):
    """`data` has what the driver named in `driver_volume_type` needs to reach the volume."""

    connection_info: dict[str, Any]


def mine(conn: Connection, call: Call) -> Row[Any]:
    """The volume in the path, when policy allows the route's rule on it."""
    assert call.route.policy is not None
    return owned_volume(conn, call, call.params["volume_id"], call.route.policy)


async def reserve(call: Call) -> None:
    await call.services.db.write(lambda conn: move(conn, "volume", mine(conn, call).id, "reserve"))


async def unreserve(call: Call) -> None:
    """Only what was reserved without an attachment; those are ended by deleting them."""

    def change(conn: Connection) -> None:
        row = mine(conn, call)
        if row.status in {"attaching", "reserved"}:
            move(conn, "volume", row.id, "unreserve", guards=(volumes.has_no_attachments(row.id),))

    await call.services.db.write(change)


async def initialize(call: Call) -> dict[str, Any]:
    connector = call.valid(ConnectionBody).connector
    owner: Owner = "compute" if call.context.is_service else "external"

    def change(conn: Connection) -> tuple[str, Operation | None]:
        row = mine(conn, call)
        made, begun = older_attach.initialize(conn, requester(call, row.project_id), row, connector, owner)
        return made.id, begun

    attachment_id, begun = await call.services.db.write(change)
    await carried_out(call, [begun])
    keys = call.services.get(KeyStore)

    def read(conn: Connection) -> dict[str, Any]:
        return connection_info.with_secret(conn, keys, attachments.get(conn, attachment_id).connection_info)

    info = await call.services.db.read(read)
    outside = {name: info.pop(name) for name in _ATTRIBUTES if name in info}
    return {"connection_info": {**outside, "data": info}}


async def terminate(call: Call) -> None:
    connector = call.valid(TerminateBody).connector
    allowed = await vouched(call, lambda conn: older_attach.cut_off(conn, mine(conn, call), connector))

    def change(conn: Connection) -> list[Operation]:
        row = mine(conn, call)
        who = requester(call, row.project_id)
        return older_attach.terminate(conn, who, row, connector, vouched=allowed)

    await carried_out(call, await call.services.db.write(change))


async def attach(call: Call) -> None:
    body = call.valid(AttachBody)
    owner = owner_of(call, body.instance_uuid)
    target = Target(body.instance_uuid, body.host_name, body.mountpoint, body.mode or "rw", owner)

    def change(conn: Connection) -> None:
        row = mine(conn, call)
        older_attach.attach(conn, requester(call, row.project_id), row, target)

    await call.services.db.write(change)


async def begin_detaching(call: Call) -> None:
    await call.services.db.write(lambda conn: move(conn, "volume", mine(conn, call).id, "begin_detaching"))


async def roll_detaching(call: Call) -> None:
    await call.services.db.write(lambda conn: older_attach.roll_back(conn, mine(conn, call)))


async def detach(call: Call) -> None:
    chosen = call.valid(DetachBody).attachment_id
    allowed = await vouched(call, lambda conn: older_attach.of(conn, mine(conn, call), chosen))

    def change(conn: Connection) -> Operation | None:
        row = mine(conn, call)
        who = requester(call, row.project_id)
        return older_attach.detach(conn, who, row, chosen, vouched=allowed)

    await carried_out(call, [await call.services.db.write(change)])


async def force_detach(call: Call) -> None:
    """What a host's agent keeps is detached there, so that the device is gone before anything is written."""
    chosen = call.valid(ForceDetachBody).attachment_id
    allowed = await vouched(call, lambda conn: older_attach.of(conn, mine(conn, call), chosen))

    def change(conn: Connection) -> list[Operation]:
        row = mine(conn, call)
        who = requester(call, row.project_id)
        return older_attach.force_detach(conn, who, row, chosen, vouched=allowed)

    await carried_out(call, await call.services.db.write(change))


def resource() -> Resource:
    """The routes."""
    return Resource(
        "volume_connections",
        "Actions of volumes by which servers and hosts attach.",
        (
            action(_PATH, "os-reserve", reserve, f"{_ACTIONS}reserve", "Keep a volume for an attachment."),
            action(_PATH, "os-unreserve", unreserve, f"{_ACTIONS}unreserve", "Let a reserved volume go."),
            action(_PATH, "os-initialize_connection", initialize, f"{_ACTIONS}initialize_connection",
                   "Connect a host; the answer says how it reaches the volume.", body=ConnectionBody,
                   answer=ConnectionAnswer, status=200),
            action(_PATH, "os-terminate_connection", terminate, f"{_ACTIONS}terminate_connection",
                   "Cut the connection of a host.", body=TerminateBody),
            action(_PATH, "os-attach", attach, f"{_ACTIONS}attach", "Say that a server or host uses the volume.",
                   body=AttachBody),
            action(_PATH, "os-begin_detaching", begin_detaching, f"{_ACTIONS}begin_detaching",
                   "Announce that the volume is about to be detached."),
            action(_PATH, "os-roll_detaching", roll_detaching, f"{_ACTIONS}roll_detaching",
                   "Take that announcement back."),
            action(_PATH, "os-detach", detach, f"{_ACTIONS}detach", "End an attachment.", body=DetachBody),
            action(_PATH, "os-force_detach", force_detach, f"{_ADMIN}force_detach",
                   "End attachments from whatever status; what a host keeps is detached there first.",
                   body=ForceDetachBody),
        ),
    )  # fmt: skip
