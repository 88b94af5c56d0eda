"""The older way to attach: initialize and terminate a connection, attach, detach; all on the rows of attachments.

A connection that was initialized is an attachment in status `attaching` until `attach` says who uses it, so what was
exported is always known and can be cut off. Every function is one piece of the caller's write transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.ids import new_id
from coordinator.operations.accept import Requester
from coordinator.operations.attach_host import accept_detach
from coordinator.operations.attachment_errors import AlreadyAttached, NoTarget, NotOfVolume, WhichAttachment
from coordinator.operations.connect_volume import CUT, accept_connect, accept_disconnect
from coordinator.operations.external_attachments import (
    Owner,
    check_may_end,
    check_mode,
    end,
    host_of,
    same_consumer,
    text,
    told,
    transport_to,
)
from coordinator.operations.reset_status import holder
from coordinator.operations.settling import MODE_KEY, settle
from coordinator.operations.transports import check_alone
from coordinator.state import attachments, events, metadata, operations, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import enter, move, move_if


@dataclass(frozen=True, slots=True)
class Target:
    """Who uses the volume: a server, a host, or both."""

    instance_id: str | None = None
    host_name: str | None = None
    mountpoint: str | None = None
    mode: str = "rw"
    owner: Owner = "external"


def initialize(
    conn: Connection, requester: Requester, volume: Row[Any], connector: Mapping[str, Any], owner: Owner
) -> tuple[Row[Any], Operation | None]:
    """Connect the host of `connector`; the same connector again gives the same answer, or joins what is at work.

    A volume in use takes another host when its server is on the way there, or when it allows multiattach.
    Raises NoConnector, NoTransport, TransitionRefused.
    """
    host = host_of(connector)
    live = attachments.of_volume(conn, volume.id)
    for row in live:
        if _is_connected(row) and row.owner != "agent" and same_consumer(row.connector, connector):
            return row, operations.active_of(conn, row.id)
    moving = any(row.owner != "agent" and row.attach_status == "attached" and row.instance_id for row in live)
    mode = "ro" if _readonly(conn, volume.id) else "rw"
    transport = transport_to(conn, volume, connector, mode)
    check_alone(conn, volume, transport)
    if live and (volume.multiattach or moving):
        move(conn, "volume", volume.id, "attachment_share")
    else:
        move(conn, "volume", volume.id, "initialize", guards=(volumes.has_no_attachments(volume.id),))
    attachment_id = new_id()
    row = enter(
        conn, "attachment", "connect_now", id=attachment_id, volume_id=volume.id, project_id=volume.project_id,
        owner=owner, connector=dict(connector), attached_host=host, attach_mode=mode,
        **told(conn, volume, attachment_id, mode, transport),
    )  # fmt: skip
    return row, None if transport is None else accept_connect(conn, requester, row, only_for_this=True)


def _is_connected(row: Row[Any]) -> bool:
    """Whether it is, or is being, connected; one that is being cut off is neither."""
    return row.connector is not None and row.attach_status in {"attaching", "attached"}


def _readonly(conn: Connection, volume_id: str) -> bool:
    return metadata.read(conn, "volume-admin", volume_id).get("readonly") == "True"


def terminate(
    conn: Connection, requester: Requester, volume: Row[Any], connector: Mapping[str, Any] | None, *, vouched: bool
) -> list[Operation]:
    """Cut the connections of this consumer (of all, without a connector); nothing there is success.

    Where the volume's server is on another host by now, its attachment goes over to that connection.
    """
    live = [row for row in attachments.of_volume(conn, volume.id) if row.owner != "agent"]
    begun: list[Operation | None] = []
    for row in live:
        if row.connector is None or (connector and not same_consumer(row.connector, connector)):
            continue
        if row.attach_status != "attached":
            begun.append(end(conn, requester, row, vouched=vouched))
            continue
        moved_to = next((other for other in live if _waits(other)), None)
        if moved_to is not None:
            _complete(conn, moved_to, Target(row.instance_id, None, row.mountpoint, row.attach_mode, row.owner))
            begun.append(end(conn, requester, row, vouched=True))
            continue
        check_may_end(row, vouched=vouched)
        if row.transport is not None:
            begun.append(accept_disconnect(conn, requester, row, keep=True))
        else:
            move(conn, "attachment", row.id, "connection_changed", **CUT)
    return [operation for operation in begun if operation is not None]


def cut_off(conn: Connection, volume: Row[Any], connector: Mapping[str, Any] | None) -> Sequence[Row[Any]]:
    """The attachments in use that `terminate` would cut, with no other connection of their server there."""
    live = [row for row in attachments.of_volume(conn, volume.id) if row.owner != "agent"]
    if any(_waits(row) for row in live):
        return []
    cut = [row for row in live if row.connector is not None and row.attach_status == "attached"]
    return [row for row in cut if not connector or same_consumer(row.connector, connector)]


def of(conn: Connection, volume: Row[Any], attachment_id: str | None) -> Sequence[Row[Any]]:
    """The attachments that are meant: one, or all when none is named."""
    return [row for row in attachments.of_volume(conn, volume.id) if attachment_id in {None, row.id}]


def _waits(row: Row[Any]) -> bool:
    """Initialized, and nobody said yet who uses it."""
    return row.attach_status == "attaching" and row.instance_id is None and row.owner != "agent"


def _complete(conn: Connection, row: Row[Any], by: Target) -> None:
    move(
        conn, "attachment", row.id, "complete", instance_id=by.instance_id, mountpoint=text(by.mountpoint),
        attach_mode=by.mode, owner=by.owner, attach_time=utcnow(),
    )  # fmt: skip


def attach(conn: Connection, requester: Requester, volume: Row[Any], target: Target) -> Row[Any]:
    """Say that the volume is in use; once more for the same target is fine.

    Raises NoTarget, ReadOnlyVolume, AlreadyAttached, TransitionRefused.
    """
    if target.instance_id is None and target.host_name is None:
        raise NoTarget
    check_mode(conn, volume.id, target.mode)
    live = attachments.of_volume(conn, volume.id)
    waiting = [row for row in live if _waits(row)]
    attached = [row for row in live if row.attach_status == "attached"]
    for row in attached:
        if row.owner != "agent" and _is(row, target):
            return row
    # What a host's agent has begun, or could not end, may hold the device there, whatever its status.
    held = [row for row in live if row.attach_status == "attached" or row.owner == "agent"]
    if held and not volume.multiattach:
        raise AlreadyAttached(volume=volume.id, holders="; ".join(holder(row) for row in held))
    row = _new(conn, volume, target) if not waiting else _taken(conn, waiting, target)
    if attached:
        move(conn, "volume", volume.id, "attachment_share")
    else:
        move(conn, "volume", volume.id, "attach", attach_status="attached")
    metadata.merge(conn, "volume-admin", volume.id, {MODE_KEY: target.mode})
    events.record(conn, requester.change("attachment", row.id), "attach_volume.end", {})
    return row


def _is(row: Row[Any], target: Target) -> bool:
    if target.instance_id is not None:
        return bool(row.instance_id == target.instance_id)
    return bool(row.instance_id is None and row.attached_host == target.host_name)


def _taken(conn: Connection, waiting: Sequence[Row[Any]], target: Target) -> Row[Any]:
    row = next((row for row in waiting if row.attached_host == target.host_name), waiting[-1])
    _complete(conn, row, target)
    return attachments.get(conn, row.id)


def _new(conn: Connection, volume: Row[Any], target: Target) -> Row[Any]:
    return enter(
        conn, "attachment", "attach_now", id=new_id(), volume_id=volume.id, project_id=volume.project_id,
        owner=target.owner, instance_id=target.instance_id, attached_host=target.host_name,
        mountpoint=text(target.mountpoint), attach_mode=target.mode, attach_time=utcnow(),
    )  # fmt: skip


def detach(
    conn: Connection, requester: Requester, volume: Row[Any], attachment_id: str | None, *, vouched: bool
) -> Operation | None:
    """End the attachment (the only one, when none is named). One that is gone already only settles the status.

    Raises WhichAttachment, KeptByHost, UsedByCompute.
    """
    live = attachments.of_volume(conn, volume.id)
    if attachment_id is None and len(live) > 1:
        raise WhichAttachment(volume=volume.id, ids=", ".join(row.id for row in live))
    chosen = next((row for row in live if attachment_id in {None, row.id}), None)
    if chosen is None:
        settle(conn, volume.id)
        return None
    return end(conn, requester, chosen, vouched=vouched)


def roll_back(conn: Connection, volume: Row[Any]) -> None:
    """A detach that was begun is not to be; where none was begun nothing changes."""
    move_if(conn, "volume", volume.id, "roll_detaching")


def force_detach(
    conn: Connection, requester: Requester, volume: Row[Any], attachment_id: str | None, *, vouched: bool
) -> list[Operation]:
    """End an attachment (all, when none is named) from any status; what a host's agent keeps is detached there,
    whoever has it open.

    Returns the work that this needs on hosts. Raises NotOfVolume, UsedByCompute.
    """
    chosen = of(conn, volume, attachment_id)
    if attachment_id is not None and not chosen:
        raise NotOfVolume(id=attachment_id, volume=volume.id)
    begun = [end(conn, requester, row, vouched=vouched) for row in chosen if row.owner != "agent"]
    settle(conn, volume.id)
    begun += [accept_detach(conn, requester, row.id, force=True) for row in chosen if row.owner == "agent"]
    return [operation for operation in begun if operation is not None]
