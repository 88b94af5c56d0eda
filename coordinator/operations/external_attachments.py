"""Attachments that somebody else keeps (owner `external`, or `compute` for a server): reserve, connect, complete, end.

They need no work on a host: a volume on a local back end is reached on its own host alone, and no remote transport
exports it. Every function is one piece of the caller's write transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row

from agent.base.errors import Invalid
from agent.base.ids import new_id
from coordinator.operations.attachment_errors import KeptByHost, NoConnector, ReadOnlyVolume, UsedByCompute
from coordinator.operations.transports import NoTransport
from coordinator.state import attachments, metadata, volumes
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import enter, move, move_if

Owner = Literal["external", "compute"]
MODE_KEY = "attached_mode"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for an attachment. `connector` describes the host that will use the volume; None only reserves.

    `owner` is `compute` when a service vouches for the request and names a server: then only a service ends it.
    """

    volume_id: str
    instance_id: str | None = None
    connector: Mapping[str, Any] | None = None
    mode: str = "rw"
    owner: Owner = "external"


def check_mode(conn: Connection, volume_id: str, mode: str) -> None:
    """A volume marked read-only is attached read-only; raises ReadOnlyVolume."""
    if mode != "ro" and metadata.read(conn, "volume-admin", volume_id).get("readonly") == "True":
        raise ReadOnlyVolume(mode=mode, volume=volume_id)


def reserve(conn: Connection, volume: Row[Any], wanted: Wanted) -> Row[Any]:
    """Reserve the volume and, with a connector, connect; raises TransitionRefused when it is not free.

    A volume that is attached already takes a second attachment of the same instance (which is moving to another
    host), and any of a volume that allows multiattach.
    """
    check_mode(conn, volume.id, wanted.mode)
    live = [row for row in attachments.of_volume(conn, volume.id) if row.owner != "agent"]
    same = wanted.instance_id is not None and any(row.instance_id == wanted.instance_id for row in live)
    if live and (same or volume.multiattach):
        move(conn, "volume", volume.id, "attachment_share")
    else:
        guards = (volumes.has_no_attachments(volume.id),)
        move(conn, "volume", volume.id, "attachment_reserve", guards=guards)
    attachment = enter(
        conn,
        "attachment",
        "reserve",
        id=new_id(),
        volume_id=volume.id,
        project_id=volume.project_id,
        owner=wanted.owner,
        instance_id=wanted.instance_id,
        attach_mode=wanted.mode,
    )
    return connect(conn, attachment, wanted.connector) if wanted.connector else attachment


def host_of(connector: Mapping[str, Any]) -> str:
    """The host that a connector describes; raises NoConnector."""
    host = connector.get("host")
    if not isinstance(host, str) or not 0 < len(host) <= 255:
        raise NoConnector(value=str(dict(connector))[:200])
    return host


def connect(conn: Connection, attachment: Row[Any], connector: Mapping[str, Any]) -> Row[Any]:
    """Say who will use it; the same connector again changes nothing. Raises KeptByHost, NoTransport, NoConnector."""
    host = host_of(connector)
    if attachment.owner == "agent":
        raise kept_by_host(attachment)
    volume = volumes.get(conn, attachment.volume_id)
    mode = str(connector.get("mode") or attachment.attach_mode)
    if mode not in {"rw", "ro"}:
        raise Invalid(reason=f"Invalid input for field/attribute mode. Value: {mode[:64]}. It is one of rw, ro.")
    check_mode(conn, volume.id, mode)
    info = connection(volume, attachment.id, host, mode)
    if attachment.attach_status == "attached":
        return attachment
    row = move(
        conn, "attachment", attachment.id, "connect", connector=dict(connector), attached_host=host, attach_mode=mode,
        mountpoint=text(connector.get("mountpoint")), connection_info=info,
    )  # fmt: skip
    if volume.status != "in-use":
        move(conn, "volume", volume.id, "attachment_connect")
    return row


def text(value: Any) -> str | None:
    return value[:255] if isinstance(value, str) and value else None


def connection(volume: Row[Any], attachment_id: str, host: str, mode: str) -> dict[str, Any]:
    """What can be said of a local back end. The device's path is the agent's own: it is made by attaching there.

    Raises NoTransport for a host that nothing reaches.
    """
    if host != volume.host_id:
        raise NoTransport(volume=volume.id, home=volume.host_id, host=host, backend=volume.backend)
    return {
        "driver_volume_type": "local",
        "host": volume.host_id,
        "backend": volume.backend,
        "volume_id": volume.id,
        "attachment_id": attachment_id,
        "format": "raw",
        "access_mode": mode,
        "encrypted": volume.encryption_key_id is not None,
        "qos_specs": None,
    }


def kept_by_host(attachment: Row[Any]) -> KeptByHost:
    return KeptByHost(id=attachment.id, volume=attachment.volume_id, host=attachment.host_id)


def complete(conn: Connection, attachment: Row[Any]) -> None:
    """The user says that the volume is in use now. Once more is fine."""
    if attachment.owner == "agent":
        raise kept_by_host(attachment)
    if attachment.attach_status == "attached":
        return
    move(conn, "attachment", attachment.id, "complete", attach_time=utcnow())
    settle(conn, attachment.volume_id)


def check_may_end(attachment: Row[Any], *, vouched: bool) -> None:
    """An attachment in use is ended by who keeps it; raises KeptByHost, UsedByCompute (both 409).

    `vouched`: a service token came with the request. What is only reserved is in nobody's use.
    """
    if attachment.owner == "agent":
        raise kept_by_host(attachment)
    if attachment.owner == "compute" and not vouched and attachment.attach_status != "reserved":
        where = f" on host {attachment.attached_host}" if attachment.attached_host else ""
        raise UsedByCompute(id=attachment.id, volume=attachment.volume_id, instance=attachment.instance_id, where=where)


def end(conn: Connection, attachment: Row[Any], *, vouched: bool = False) -> Sequence[Row[Any]]:
    """End it; the volume is available again with the last one. Returns what is left. Raises as `check_may_end`."""
    check_may_end(attachment, vouched=vouched)
    move(conn, "attachment", attachment.id, "gone", detach_time=utcnow())
    return settle(conn, attachment.volume_id)


def settle(conn: Connection, volume_id: str) -> Sequence[Row[Any]]:
    """Give the volume the status that its attachments call for; returns them."""
    left = attachments.of_volume(conn, volume_id)
    if not left:
        metadata.remove(conn, "volume-admin", volume_id, MODE_KEY)
        move_if(conn, "volume", volume_id, "attachment_gone", attach_status="detached")
    elif any(row.attach_status == "attached" for row in left):
        move_if(conn, "volume", volume_id, "attachment_complete", attach_status="attached")
    elif all(row.attach_status == "reserved" for row in left):
        move_if(conn, "volume", volume_id, "attachment_left", attach_status="detached")
    return left
