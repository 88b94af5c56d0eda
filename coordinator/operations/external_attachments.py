"""Attachments that somebody else keeps (owner `external`): a reservation, who uses it, and its end.

They need no work on a host: a volume on a local back end is reached on its own host alone, and no remote transport
exports it. Every function is one piece of the caller's write transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, update

from agent.base.errors import Conflict, Invalid
from agent.base.ids import new_id
from coordinator.operations.attach_host import NoTransport
from coordinator.state import attachments, metadata, volumes
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.volumes import volumes as table
from coordinator.state.transition import enter, move, move_if, refusal


class KeptByHost(Conflict):
    code = "attachment.kept-by-host"
    sentence = (
        "Attachment {id} of volume {volume} is kept by the agent of host {host}; it is ended by detaching it there."
    )
    hint = "Run: brickyard attachment delete {id}."


class ReadOnlyVolume(Invalid):
    code = "attachment.read-only-volume"
    sentence = "Invalid attaching mode '{mode}' for volume {volume}: it is marked read-only."
    hint = "Ask for mode ro (microversion 3.54), or clear the flag: openstack volume set --read-write {volume}."


class NoConnector(Invalid):
    code = "attachment.no-connector"
    sentence = "Invalid input for field/attribute connector. Value: {value}. It must name at least the host."


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for an attachment. `connector` describes the host that will use the volume; None only reserves."""

    volume_id: str
    instance_id: str | None = None
    connector: Mapping[str, Any] | None = None
    mode: str = "rw"


def check_mode(conn: Connection, volume_id: str, mode: str) -> None:
    """A volume marked read-only is attached read-only; raises ReadOnlyVolume."""
    if mode != "ro" and metadata.read(conn, "volume-admin", volume_id).get("readonly") == "True":
        raise ReadOnlyVolume(mode=mode, volume=volume_id)


def reserve(conn: Connection, volume: Row[Any], wanted: Wanted) -> Row[Any]:
    """Reserve the volume and, with a connector, connect; raises TransitionRefused when it is not free.

    A volume that is attached already takes a second attachment of the same instance (which is moving to another host).
    """
    check_mode(conn, volume.id, wanted.mode)
    same = [
        row
        for row in attachments.of_volume(conn, volume.id)
        if wanted.instance_id is not None and row.instance_id == wanted.instance_id and row.owner == "external"
    ]
    if same and volume.status in {"in-use", "attaching", "reserved"}:
        _still(conn, volume)
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
        owner="external",
        instance_id=wanted.instance_id,
        attach_mode=wanted.mode,
    )
    return connect(conn, attachment, wanted.connector) if wanted.connector else attachment


def _still(conn: Connection, volume: Row[Any]) -> None:
    """Hold the row in the status that was seen."""
    same = update(table).where(table.c.id == volume.id, table.c.status == volume.status, ~table.c.deleted)
    if conn.execute(same.values(updated_at=utcnow())).rowcount == 0:
        raise refusal(conn, "volume", volume.id, "attachment_reserve")


def connect(conn: Connection, attachment: Row[Any], connector: Mapping[str, Any]) -> Row[Any]:
    """Say who will use it; the same connector again changes nothing. Raises KeptByHost, NoTransport, NoConnector."""
    host = connector.get("host")
    if not isinstance(host, str) or not 0 < len(host) <= 255:
        raise NoConnector(value=str(dict(connector))[:200])
    if attachment.owner == "agent":
        raise KeptByHost(id=attachment.id, volume=attachment.volume_id, host=attachment.host_id)
    volume = volumes.get(conn, attachment.volume_id)
    if host != volume.host_id:
        raise NoTransport(volume=volume.id, home=volume.host_id, host=host, backend=volume.backend)
    mode = str(connector.get("mode") or attachment.attach_mode)
    if mode not in {"rw", "ro"}:
        raise Invalid(reason=f"Invalid input for field/attribute mode. Value: {mode[:64]}. It is one of rw, ro.")
    check_mode(conn, volume.id, mode)
    if attachment.attach_status == "attached":
        return attachment
    row = move(
        conn, "attachment", attachment.id, "connect", connector=dict(connector), attached_host=host, attach_mode=mode,
        mountpoint=_text(connector.get("mountpoint")), connection_info=_connection(volume, attachment.id, mode),
    )  # fmt: skip
    if volume.status != "in-use":
        move(conn, "volume", volume.id, "attachment_connect")
    return row


def _text(value: Any) -> str | None:
    return value[:255] if isinstance(value, str) and value else None


def _connection(volume: Row[Any], attachment_id: str, mode: str) -> dict[str, Any]:
    """What can be said of a local back end. The device's path is the agent's own: it is made by attaching there."""
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


def complete(conn: Connection, attachment: Row[Any]) -> None:
    """The user says that the volume is in use now. Once more is fine."""
    if attachment.owner == "agent":
        raise KeptByHost(id=attachment.id, volume=attachment.volume_id, host=attachment.host_id)
    if attachment.attach_status == "attached":
        return
    move(conn, "attachment", attachment.id, "complete", attach_time=utcnow())
    move(conn, "volume", attachment.volume_id, "attachment_complete", attach_status="attached")


def end(conn: Connection, attachment: Row[Any]) -> Sequence[Row[Any]]:
    """End it; the volume is available again with the last one. Returns what is left. Raises KeptByHost."""
    if attachment.owner != "external":
        raise KeptByHost(id=attachment.id, volume=attachment.volume_id, host=attachment.host_id)
    move(conn, "attachment", attachment.id, "gone", detach_time=utcnow())
    left = attachments.of_volume(conn, attachment.volume_id)
    volume = volumes.get(conn, attachment.volume_id)
    if not left:
        move_if(conn, "volume", volume.id, "attachment_gone", attach_status="detached")
    elif volume.status == "attaching" and any(row.attach_status == "attached" for row in left):
        move(conn, "volume", volume.id, "attachment_complete")
    return left
