"""How a consumer reaches a volume, in the words that os-brick and Nova know; secrets come in when it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row

from agent.wire.jobs import Connection as Reached
from agent.wire.results import RbdAccess
from coordinator.keys.store import KeyStore
from coordinator.operations.exports import chap_secret
from coordinator.state import qos_limits
from coordinator.state.volumes import backend_of


def local(conn: Connection, volume: Row[Any], attachment_id: str, mode: str) -> dict[str, Any]:
    """On the volume's own host. The device's path is the agent's own: it is made by attaching there."""
    where = {"host": volume.host_id, "backend": backend_of(volume), "format": "raw"}
    return {"driver_volume_type": "local", **where, **_common(conn, volume, attachment_id, mode)}


def in_cluster(conn: Connection, volume: Row[Any], attachment_id: str, mode: str, access: RbdAccess) -> dict[str, Any]:
    """From anywhere, by the cluster's own clients; its key is what they have already, as a secret of libvirt."""
    return {
        "driver_volume_type": "rbd",
        "name": f"{access.pool}/{access.image_prefix}{volume.id}",
        "hosts": [address for address, _ in access.monitors],
        "ports": [str(port) for _, port in access.monitors],
        "cluster_name": access.cluster_name,
        "auth_enabled": True,
        "auth_username": access.user,
        "secret_type": "ceph",
        "secret_uuid": access.secret_uuid,
        "discard": True,
        **_common(conn, volume, attachment_id, mode),
    }


def remote(conn: Connection, volume: Row[Any], attachment: Row[Any], reached: Reached) -> dict[str, Any]:
    """By what its own host offers: from another host, or by vhost to a guest there."""
    about = words(reached, attachment.initiator)
    return {**about, "wwid": reached.identity, **_common(conn, volume, attachment.id, attachment.attach_mode)}


def words(reached: Reached, initiator: str = "") -> dict[str, Any]:
    """The kind of connection and what its connector needs, for each protocol."""
    if reached.protocol in {"nvme-tcp", "nvme-rdma"}:
        return _nvme(reached, initiator)
    ways = {"rbd": _rbd, "iscsi": _iscsi, "iser": _iscsi, "vhost": _vhost, "fc": _fibre_channel, "eckd": _eckd}
    return ways[reached.protocol](reached)


def with_secret(conn: Connection, keys: KeyStore, info: Mapping[str, Any] | None) -> dict[str, Any]:
    """The information with the secret that goes with it, for who may connect; never stored, never logged."""
    told = dict(info or {})
    if told.get("auth_method") == "CHAP":
        secret = chap_secret(conn, keys, str(told["auth_username"]))
        told["auth_password"] = secret.value().decode()
    return told


def _common(conn: Connection, volume: Row[Any], attachment_id: str, mode: str) -> dict[str, Any]:
    return {
        "volume_id": volume.id,
        "attachment_id": attachment_id,
        "access_mode": mode,
        "encrypted": volume.encryption_key_id is not None,
        "qos_specs": qos_limits.front_end(conn, volume.volume_type_id, volume.size),
    }


def _iscsi(reached: Reached) -> dict[str, Any]:
    portals = [_portal(portal.address, portal.port) for portal in reached.portals]
    about: dict[str, Any] = {
        "driver_volume_type": "iser" if reached.transport == "iser" else "iscsi",
        "target_discovered": False,
        "target_iqn": reached.target,
        "target_portal": portals[0],
        "target_lun": reached.lun,
        "target_iqns": [reached.target] * len(portals),
        "target_portals": portals,
        "target_luns": [reached.lun] * len(portals),
    }
    if reached.auth == "chap":
        about |= {"auth_method": "CHAP", "auth_username": reached.username}
    return about


def _rbd(reached: Reached) -> dict[str, Any]:
    assert reached.ceph is not None
    return {
        "driver_volume_type": "rbd",
        "name": f"{reached.ceph.pool}/{reached.target}",
        "hosts": [portal.address for portal in reached.portals],
        "ports": [str(portal.port) for portal in reached.portals],
    }


def _vhost(reached: Reached) -> dict[str, Any]:
    """In the words of QEMU and libvirt: `wwpn` of a vhost-scsi controller, which has the volume as its LUN."""
    return {"driver_volume_type": "vhost_scsi", "target_wwpn": reached.target, "target_lun": reached.lun}


def _nvme(reached: Reached, host_nqn: str) -> dict[str, Any]:
    """Both forms that consumers know: the list of portals, and the older one of a single portal (`nqn`, `target_…`).

    os-brick takes an unknown word in the list for TCP, and older ones know `RoCEv2` alone there.
    """
    by = "RoCEv2" if reached.transport == "rdma" else reached.transport
    ident = reached.identity.removeprefix("uuid.")
    return {
        "driver_volume_type": "nvmeof",
        "target_nqn": reached.target,
        "nqn": reached.target,
        "host_nqn": host_nqn,
        "vol_uuid": ident,
        "volume_nguid": ident.replace("-", ""),
        "portals": [[portal.address, str(portal.port), by] for portal in reached.portals],
        "target_portal": reached.portals[0].address,
        "target_port": reached.portals[0].port,
        "transport_type": reached.transport,
        "ns_id": reached.nsid,
    }


def _fibre_channel(reached: Reached) -> dict[str, Any]:
    assert reached.fabric is not None
    ports, addressing = reached.fabric.ports, reached.fabric.addressing
    about: dict[str, Any] = {
        "driver_volume_type": "fibre_channel",
        "target_discovered": False,
        "target_wwn": [port.wwpn for port in ports],
        "target_lun": ports[0].lun,
        "target_wwns": [port.wwpn for port in ports],
        "target_luns": [port.lun for port in ports],
    }
    return about if addressing == "SAM" else about | {"addressing_mode": addressing}


def _eckd(reached: Reached) -> dict[str, Any]:
    """The control unit's first device (`80` of 8001) and the unit's number behind it, as the DS8000 hands them out."""
    assert reached.channel is not None
    number = int(reached.channel.bus_id.rpartition(".")[2], 16)
    unit, behind = divmod(number, 256)
    about = {"driver_volume_type": "fibre_channel_eckd", "target_discovered": True, "discard": False}
    return {**about, "cula": unit, "unit_address": behind}


def _portal(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
