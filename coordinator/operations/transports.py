"""How a volume reaches a host: on its own host directly, to others by what its pool offers and they can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row

from agent.base.errors import Conflict, Invalid
from agent.wire.jobs import LOCAL_GUESTS
from agent.wire.results import RbdAccess
from coordinator.state import attachments, fleet
from coordinator.state.locks import hold
from coordinator.state.tables.volumes import volumes

PREFERRED = ("nvme-rdma", "iser", "nvme-tcp", "iscsi")
"""Transports between hosts, best first: a host says whether it has what RDMA takes."""
UNTOLD = ("nvme-tcp", "iscsi", "nvme-rdma", "iser")
"""The same for consumers that do not say: RDMA where nothing else is offered, as the site's operator wants it."""
_ABLE = {
    "iscsi": ("iscsi", "initiator_iqn"),
    "iser": ("iser", "initiator_iqn"),
    "nvme-tcp": ("nvme-tcp", "nqn"),
    "nvme-rdma": ("nvme-rdma", "nqn"),
}
"""By transport: the capability that a host must have, and the fact that names it there."""
_CHAP = frozenset({"iscsi", "iser"})
_READ_ONLY = frozenset({"iscsi", "iser", "rbd"})
"""Transports whose target can refuse writes of one consumer."""


class NoTransport(Conflict):
    code = "attachment.no-transport"
    sentence = "Volume {volume} lies on host {home}, and no transport reaches it from host {host}."
    hint = "Attach it to host {home}, or export back end {backend} by NVMe or iSCSI (read-only: by iSCSI)."


class OnlyInCluster(NoTransport):
    code = "attachment.only-in-cluster"
    sentence = "Volume {volume} lies in a Ceph cluster: host {host} can not attach it by itself."
    hint = (
        "Give host {host} a keyring of the cluster ([connectors] ceph_keyring) and the kernel's module rbd, attach it "
        "to a server (Nova), or map {image} with a client of the cluster."
    )


class HostTooOld(NoTransport):
    code = "attachment.host-too-old"
    hint = "Bring the agent of host {home} to this release: it can not offer volumes to other hosts."


class NoVhost(NoTransport):
    code = "attachment.no-vhost"
    sentence = "Volume {volume} can not be offered to a guest of host {home} by vhost: {reason}."
    hint = "Leave `vhost` out of the connector, or {remedy}."


class VhostElsewhere(Invalid):
    code = "attachment.vhost-elsewhere"
    sentence = "Volume {volume} lies on host {home}: guests of host {host} can not reach it by vhost."
    hint = "Leave `vhost` out of the connector; only a guest of the volume's own host has use for it."


@dataclass(frozen=True, slots=True)
class Transport:
    """`initiator` is the IQN or NQN by which the consumer is known, by vhost LOCAL_GUESTS."""

    protocol: str
    initiator: str


def choose(conn: Connection, volume: Row[Any], host: Row[Any], mode: str = "rw") -> Transport | None:
    """None: the volume lies on that host (or nowhere yet). NoTransport, OnlyInCluster, HostTooOld."""
    access = fleet.rbd_access_of(conn, volume.pool_id)
    if access is not None:
        return _in_cluster(conn, volume, host, access, mode)
    if volume.host_id is None or volume.host_id == host.id:
        return None
    facts = host.facts or {}
    names = {
        protocol: str(facts[fact])
        for protocol, (capability, fact) in _ABLE.items()
        if capability in facts.get("capabilities", ()) and facts.get(fact)
    }
    return best(conn, volume, names, host.id, mode)


def _in_cluster(conn: Connection, volume: Row[Any], host: Row[Any], access: RbdAccess, mode: str) -> Transport:
    """Each host reaches the cluster by itself, also the one that serves the volume."""
    if "rbd" not in (host.facts or {}).get("capabilities", ()):
        image = f"{access.pool}/{access.image_prefix}{volume.id}"
        raise OnlyInCluster(volume=volume.id, host=host.id, image=image)
    if access.fsid is None:
        raise HostTooOld(volume=volume.id, home=volume.host_id, host=host.id, backend=volume.backend)
    return best(conn, volume, {"rbd": f"host.{host.id}"}, host.id, mode, order=("rbd",))


def auth_of(protocol: str) -> Literal["none", "chap"]:
    """How a consumer proves who it is."""
    return "chap" if protocol in _CHAP else "none"


def best(
    conn: Connection,
    volume: Row[Any],
    names: dict[str, str],
    host: str,
    mode: str,
    *,
    order: Sequence[str] = PREFERRED,
) -> Transport:
    """The first transport of `order` from the volume's pool to a consumer that is known by `names` (by protocol)."""
    told = {"volume": volume.id, "home": volume.host_id, "host": host, "backend": volume.backend}
    offered = fleet.protocols_of(conn, volume.pool_id)
    for protocol in order:
        if protocol in offered and protocol in names and (mode != "ro" or protocol in _READ_ONLY):
            home = fleet.get(conn, volume.host_id)
            if "export.apply" not in (home.facts or {}).get("job_kinds", ()):
                raise HostTooOld(**told)
            return Transport(protocol, names[protocol])
    raise NoTransport(**told)


def to_guest(conn: Connection, volume: Row[Any], host: str, mode: str) -> Transport:
    """By vhost, to a guest of the volume's own host. VhostElsewhere, NoVhost."""
    about = {"volume": volume.id, "home": volume.host_id or "none"}
    if host != volume.host_id:
        raise VhostElsewhere(**about, host=host)
    if "vhost" not in fleet.protocols_of(conn, volume.pool_id):
        reason = f"back end {volume.backend} does not offer it"
        raise NoVhost(**about, reason=reason, remedy=f"add [targets.vhost] to the agent's configuration on host {host}")
    if mode == "ro":
        raise NoVhost(**about, reason="the kernel could not refuse its writes", remedy="attach it for writing")
    return Transport("vhost", LOCAL_GUESTS)


def check_alone(conn: Connection, volume: Row[Any], transport: Transport | None) -> None:
    """An endpoint of vhost is one guest's alone. NoVhost."""
    if transport is None or transport.protocol != "vhost":
        return
    hold(conn, volumes, volume.id)  # Else two that ask at once would both find it free.
    for row in attachments.of_volume(conn, volume.id):
        if row.transport == "vhost":
            reason = f"attachment {row.id} has its endpoint"
            raise NoVhost(volume=volume.id, home=volume.host_id, reason=reason, remedy="end that one first")
