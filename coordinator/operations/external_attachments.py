"""Attachments that somebody else keeps (owner `external`, or `compute` for a server): reserve, connect, complete, end.

On the volume's own host they need no work; for others its host offers the volume, by an operation that is accepted
here. Every function is one piece of the caller's write transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Invalid
from agent.base.ids import new_id
from coordinator.compute.base import Compute
from coordinator.operations import connection_info, transports
from coordinator.operations.accept import Requester
from coordinator.operations.attachment_errors import (
    ComputeUnsure,
    KeptByHost,
    NoConnector,
    OtherConsumer,
    ReadOnlyVolume,
    UsedByCompute,
)
from coordinator.operations.connect_volume import accept_connect, accept_disconnect
from coordinator.operations.settling import settle
from coordinator.operations.transports import Transport
from coordinator.state import attachments, events, fleet, metadata, operations, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import enter, move

Owner = Literal["external", "compute"]
_NAMES = {"iscsi": "initiator", "iser": "initiator", "nvme-tcp": "nqn", "nvme-rdma": "nqn"}
"""By transport: what names the consumer in its connector."""


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


def reserve(
    conn: Connection, requester: Requester, volume: Row[Any], wanted: Wanted
) -> tuple[Row[Any], Operation | None]:
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
    return connect(conn, requester, attachment, wanted.connector) if wanted.connector else (attachment, None)


def host_of(connector: Mapping[str, Any]) -> str:
    """The host that a connector describes; raises NoConnector."""
    host = connector.get("host")
    if not isinstance(host, str) or not 0 < len(host) <= 255:
        raise NoConnector(value=str(dict(connector))[:200])
    return host


def connect(
    conn: Connection, requester: Requester, attachment: Row[Any], connector: Mapping[str, Any]
) -> tuple[Row[Any], Operation | None]:
    """Say who will use it; with the operation that offers the volume to it, where it lies on another host.

    The same connector again changes nothing, and joins what is at work. Raises KeptByHost, NoTransport, NoConnector,
    OtherConsumer, VhostElsewhere.
    """
    host = host_of(connector)
    if attachment.owner == "agent":
        raise kept_by_host(attachment)
    volume = volumes.get(conn, attachment.volume_id)
    mode = str(connector.get("mode") or attachment.attach_mode)
    if mode not in {"rw", "ro"}:
        raise Invalid(reason=f"Invalid input for field/attribute mode. Value: {mode[:64]}. It is one of rw, ro.")
    check_mode(conn, volume.id, mode)
    transport = transport_to(conn, volume, connector, mode)
    if attachment.attach_status == "attached":
        return attachment, None
    if attachment.transport is not None:
        if not same_consumer(attachment.connector, connector):
            raise OtherConsumer(id=attachment.id, host=attachment.attached_host)
        return attachment, operations.active_of(conn, attachment.id)
    transports.check_alone(conn, volume, transport)
    row = move(
        conn, "attachment", attachment.id, "connect", connector=dict(connector), attached_host=host, attach_mode=mode,
        mountpoint=text(connector.get("mountpoint")), attention=None,
        **told(conn, volume, attachment.id, mode, transport),
    )  # fmt: skip
    if volume.status != "in-use":
        move(conn, "volume", volume.id, "attachment_connect")
    return row, None if transport is None else accept_connect(conn, requester, row, only_for_this=False)


def transport_to(conn: Connection, volume: Row[Any], connector: Mapping[str, Any], mode: str) -> Transport | None:
    """How the consumer reaches the volume; None on the volume's own host, or in its cluster.

    Raises NoTransport, VhostElsewhere.
    """
    host = host_of(connector)
    if by_vhost(connector):
        return transports.to_guest(conn, volume, host, mode)
    if host == volume.host_id or fleet.rbd_access_of(conn, volume.pool_id) is not None:
        return None
    given = {protocol: connector.get(key) for protocol, key in _NAMES.items()}
    names = {protocol: name for protocol, name in given.items() if isinstance(name, str) and name}
    return transports.best(conn, volume, names, host, mode, order=transports.UNTOLD)


def by_vhost(connector: Mapping[str, Any]) -> bool:
    """Whether the consumer is a guest of the connector's host that opens the volume by vhost-scsi."""
    asked = connector.get("vhost")
    if asked is not None and not isinstance(asked, bool):
        shown = str(asked)[:64]
        raise Invalid(reason=f"Invalid input for field/attribute vhost. Value: {shown}. It is one of true, false.")
    return asked is True


def told(
    conn: Connection, volume: Row[Any], attachment_id: str, mode: str, transport: Transport | None
) -> dict[str, Any]:
    """The columns of an attachment that say how it is reached; what another host offers is known when it does."""
    if transport is None:
        access = fleet.rbd_access_of(conn, volume.pool_id)
        if access is not None:
            return {"connection_info": connection_info.in_cluster(conn, volume, attachment_id, mode, access)}
        return {"connection_info": connection_info.local(conn, volume, attachment_id, mode)}
    return {"transport": transport.protocol, "initiator": transport.initiator}


def same_consumer(known: Mapping[str, Any] | None, given: Mapping[str, Any]) -> bool:
    """Whether two connectors describe the same consumer: what both say of host and initiator agrees."""
    if not known:
        return False
    both = [name for name in ("host", *set(_NAMES.values()), "wwpns") if known.get(name) and given.get(name)]
    return bool(both) and all(known[name] == given[name] for name in both)


def text(value: Any) -> str | None:
    return value[:255] if isinstance(value, str) and value else None


def kept_by_host(attachment: Row[Any]) -> KeptByHost:
    return KeptByHost(id=attachment.id, volume=attachment.volume_id, host=attachment.host_id)


def complete(conn: Connection, requester: Requester, attachment: Row[Any]) -> None:
    """The user says that the volume is in use now. Once more is fine."""
    if attachment.owner == "agent":
        raise kept_by_host(attachment)
    if attachment.attach_status == "attached":
        return
    move(conn, "attachment", attachment.id, "complete", attach_time=utcnow())
    settle(conn, attachment.volume_id)
    events.record(conn, requester.change("attachment", attachment.id), "attach_volume.end", {})


async def vouched_by(compute: Compute | None, rows: Sequence[Row[Any]]) -> bool:
    """Whether the compute service says that its servers use none of these attachments any more.

    Raises UsedByCompute for one that a server has, ComputeUnsure where the compute service does not say (both 409).
    """
    asked = False
    for row in rows:
        if compute is None or row.owner == "agent" or row.instance_id is None or row.attach_status == "reserved":
            continue
        try:
            use = await compute.use(row.instance_id, row.volume_id, row.id)
        except BrickyardError as error:
            about = {"id": row.id, "volume": row.volume_id, "instance": row.instance_id}
            raise ComputeUnsure(**about, reason=str(error)) from error
        if use == "in-use":
            raise used_by_compute(row)
        asked = True
    return asked


def used_by_compute(row: Row[Any]) -> UsedByCompute:
    where = f" on host {row.attached_host}" if row.attached_host else ""
    return UsedByCompute(id=row.id, volume=row.volume_id, instance=row.instance_id, where=where)


def check_may_end(attachment: Row[Any], *, vouched: bool) -> None:
    """An attachment in use is ended by who keeps it; raises KeptByHost, UsedByCompute (both 409).

    `vouched`: a service token came with the request, or the compute service said that it is not in use. What is only
    reserved is in nobody's use.
    """
    if attachment.owner == "agent":
        raise kept_by_host(attachment)
    if attachment.owner == "compute" and not vouched and attachment.attach_status != "reserved":
        raise used_by_compute(attachment)


def end(conn: Connection, requester: Requester, attachment: Row[Any], *, vouched: bool = False) -> Operation | None:
    """End it; the volume is available again with the last one. Raises as `check_may_end`.

    One that is offered by the volume's host is cut off there first, by the operation that is returned; a repeat
    joins it.
    """
    check_may_end(attachment, vouched=vouched)
    if attachment.attach_status == "detaching":
        return operations.active_of(conn, attachment.id)
    if attachment.transport is not None:
        return accept_disconnect(conn, requester, attachment, keep=False)
    move(conn, "attachment", attachment.id, "gone", detach_time=utcnow())
    settle(conn, attachment.volume_id)
    events.record(conn, requester.change("attachment", attachment.id), "detach_volume.end", {})
    return None
