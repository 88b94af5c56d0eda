"""Work on back ends that several hosts serve: who does it, and who instead when that host is not heard any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, select

from coordinator.operations.workflow import JobCall
from coordinator.scheduler.placement import Placement
from coordinator.state import clusters, operations, together
from coordinator.state.operations import Operation
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes

# What may be done by any member, since it touches nothing of the host itself.
_MOVABLE = ("volume.", "snapshot")
_SEEN = (volumes.c.id, volumes.c.host_id, volumes.c.cluster_name, volumes.c.source_volid, volumes.c.snapshot_id)
_OF_VOLUME = select(*_SEEN).where(volumes.c.id == bindparam("wanted"))
_OF_SNAPSHOT = (
    select(*_SEEN).join(snapshots, snapshots.c.volume_id == volumes.c.id).where(snapshots.c.id == bindparam("wanted"))
)


def spread(conn: Connection, chosen: Placement, volume_id: str, *, fixed: bool) -> dict[str, Any]:
    """Where a new volume lies: of a cluster, the member that serves it; `fixed` leaves it to the chosen one."""
    where = {"host_id": chosen.host_id, "backend": chosen.backend, "pool": chosen.pool, "pool_id": chosen.pool_id}
    cluster = chosen.cluster
    if cluster is None:
        return where
    member = None if fixed else clusters.chosen(clusters.members(conn, cluster, chosen.pool, takes_new=True), volume_id)
    if member is not None:
        where |= {"host_id": member.host_id, "pool_id": member.id}
    return {**where, "cluster_name": cluster}


def shared(conn: Connection, operation: Operation, call: JobCall) -> JobCall:
    """The call, marked where other hosts could do it too."""
    if not call.args.kind.startswith(_MOVABLE):
        return call
    row = _volume(conn, operation)
    return replace(call, shared=True) if row is not None and row.cluster_name and row.host_id == call.host_id else call


def taken_over(conn: Connection, operation: Operation, lost: str) -> bool:
    """Let another member serve the operation's volume from now on; False when there is none. Raises LeaseLost.

    Who was paused past the lease does not know what became of the volume since.
    """
    operations.fenced(conn, operation)
    row = _volume(conn, operation)
    if row is None:
        return False
    return clusters.take_over(conn, row.id, lost, prefer=_of_source(conn, row))


def _of_source(conn: Connection, row: Any) -> str | None:
    """The host of what the volume is made from: there it is kept from being written to meanwhile."""
    query = select(volumes.c.host_id)
    if row.source_volid is not None:
        query = query.where(volumes.c.id == row.source_volid)
    elif row.snapshot_id is not None:
        query = query.join(snapshots, snapshots.c.volume_id == volumes.c.id).where(snapshots.c.id == row.snapshot_id)
    else:
        return None
    return conn.execute(query).scalar_one_or_none()


def _volume(conn: Connection, operation: Operation) -> Any:
    known = together.known(conn, (operation.resource_type, operation.resource_id))
    if known is not None:
        return known
    query = {"volume": _OF_VOLUME, "snapshot": _OF_SNAPSHOT}.get(operation.resource_type)
    return None if query is None else conn.execute(query, {"wanted": operation.resource_id}).one_or_none()
