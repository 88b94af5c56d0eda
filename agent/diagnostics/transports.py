"""A volume between hosts, as the kernel shows it: who may use it here, or by which session and paths it comes here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.base.terminal.sizes import size
from agent.host import ccw, lio, nvme, nvmet, rbd, scsi, sysfs
from agent.host.openers import openers
from agent.jobs import remote
from agent.wire.jobs import Connection

Node = dict[str, Any]


def node(kind: str, name: str, about: str, below: list[Node] | None = None) -> Node:
    return {"kind": kind, "name": name, "about": about, "below": below or []}


def connection_of(row: Mapping[str, Any]) -> Connection | None:
    """How the volume of a row of the table of attachments is reached; None: it lies here."""
    told = row["identifiers"].get("connection")
    return Connection.model_validate(told) if told else None


def there(row: Mapping[str, Any], connection: Connection, sys: Path) -> bool:
    """Whether the kernel shows all that a row says."""
    title = str(row["device"]).removeprefix("/dev/mapper/")
    mapped = title == row["device"] or sysfs.mapper_device(title, sys) is not None
    return bool(remote.paths(connection, sys)) and mapped


def exported(volume_id: str, root: Path) -> list[Node]:
    """The volume's targets on this host, with portals and consumers."""
    return [*(found for one in lio.FABRICS for found in _by_scsi(volume_id, root, one)), *_by_nvme(volume_id, root)]


def _by_nvme(volume_id: str, root: Path) -> list[Node]:
    nodes = []
    for one in nvmet.subsystems(volume_id, root / nvmet.CONFIGFS.relative_to("/")):
        below = [node("portal", name, "RDMA" if one.transport == "rdma" else "") for name in one.portals]
        below += [node("consumer", name, "rw") for name in one.initiators]
        nodes.append(node("target", one.target, "ready" if one.ready else "takes no log-ins", below))
    return nodes


def _by_scsi(volume_id: str, root: Path, fabric: lio.Fabric) -> list[Node]:
    found = lio.target(volume_id, root / lio.CONFIGFS.relative_to("/"), fabric)
    if found is None:
        return []
    if fabric == "vhost":
        about = "for guests of this host" if found.ready else "takes no guests"
        return [node("target", found.target, about, [node("device", found.device, f"LUN {lio.LUN}")])]
    below = [node("portal", name, "iSER" if fabric == "iser" else "") for name in found.portals]
    for one in found.consumers:
        about = "connected" if one.connected else "not connected"
        below.append(node("consumer", one.initiator, f"{about}, {'ro' if one.read_only else 'rw'}"))
    return [node("target", found.target, "ready" if found.ready else "takes no log-ins", below)]


def reached(connection: Connection, sys: Path) -> list[Node]:
    """Each way to the volume with its path, and above the paths what gathers and uses them."""
    nvme_ways = {"nvme-tcp": _controllers, "nvme-rdma": _controllers}
    ways = nvme_ways | {"fc": _over_fabric, "eckd": _on_channel, "rbd": _from_cluster}
    return ways.get(connection.protocol, _sessions)(connection, sys)


def _controllers(connection: Connection, sys: Path) -> list[Node]:
    found = nvme.subsystem(connection.target, sys)
    nodes = []
    if found is not None:
        for one in found.controllers:
            where = f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}"
            by = " by RDMA" if one.transport == "rdma" else ""
            nodes.append(node("controller", one.name, f"{where}{by}, {one.state}"))
        for space in found.namespaces:
            about = f"namespace {space.nsid}, {size(space.size)}, {space.identity or 'no identity'}"
            nodes.append(node("device", f"/dev/{space.name}", about, users(sys, space.name)))
    return [node("target", connection.target, f"{connection.protocol}, namespace {connection.nsid}", nodes)]


def _over_fabric(connection: Connection, sys: Path) -> list[Node]:
    from agent.connectors import fc_ways

    nodes = []
    for way in fc_ways.known(connection):
        disk = way.disk()
        about = ", ".join((way.wwpn, f"LUN {way.lun}", way.hopeless() or f"by {way.mode}", *way.links()))
        nodes.append(node("adapter", way.adapter, about, [] if disk is None else [_path(disk, sys)]))
    return [node("target", connection.target, "Fibre Channel", nodes)]


def _on_channel(connection: Connection, sys: Path) -> list[Node]:
    channel = connection.channel
    dasd = ccw.dasd(channel.bus_id) if channel is not None else None
    if channel is None or dasd is None:
        return [node("target", connection.target, "no such DASD, or it is ignored")]
    about = f"DASD {dasd.uid or 'without an id'}, {dasd.status}, the channel says {dasd.availability}"
    below = [node("path", dasd.device, size(dasd.size), users(sys, dasd.disk))] if dasd.disk else []
    return [node("target", channel.bus_id, about, below)]


def _from_cluster(connection: Connection, sys: Path) -> list[Node]:
    image = connection.ceph
    assert image is not None
    found = rbd.image(image.pool, connection.target, read_only=image.read_only, sys=sys)
    places = ", ".join(f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}"
                       for one in connection.portals)  # fmt: skip
    about = f"Ceph cluster {image.fsid}, monitors {places}"
    below = []
    if found is not None:
        told = f"{size(found.size)}, {'read-only, ' if found.read_only else ''}{found.identity}"
        below.append(node("device", f"/dev/{found.name}", told, users(sys, found.name)))
    return [node("target", f"{image.pool}/{connection.target}", about, below)]


def _sessions(connection: Connection, sys: Path) -> list[Node]:
    sessions = scsi.sessions(connection.target, sys)
    nodes = []
    for session in sessions:
        disk = session.disk(connection.lun or 0)
        named = session.interface(sys)
        by = " by iSER" if session.transport(sys) == "iser" else f" by {named}" if named != "default" else ""
        about = f"{session.address}:{session.port}{by}, {session.state.lower()}"
        nodes.append(node("session", str(session.number), about, [] if disk is None else [_path(disk, sys)]))
    target = node("target", connection.target, f"{connection.protocol}, LUN {connection.lun}", nodes)
    return [target]


def _path(disk: scsi.Disk, sys: Path) -> Node:
    about = f"{disk.address}, {disk.state}, {size(disk.size)}, {disk.identity or 'no identity'}"
    return node("path", f"/dev/{disk.name}", about, users(sys, disk.name))


def users(sys: Path, name: str) -> list[Node]:
    """What stands on a device, up to those who use it."""
    below = []
    for user in sysfs.users_of(name, sys):
        holder, _, title = user.partition(" ")
        if holder.startswith("dm-"):
            below.append(node("device", f"/dev/{holder}", title.strip("()"), users(sys, holder)))
        else:
            below.append(node("holder", user, ""))
    return below + [node("holder", one, "has it open") for one in openers(name, sys, sys.parent / "proc")]
