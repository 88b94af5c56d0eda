"""Hosts and their back ends in the shape of Block Storage's services and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, func, select, update

from agent.base.errors import Invalid, NotFound
from coordinator.state import fleet
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes

_OF_VOLUME = (
    select(pools.c.host_id, pools.c.backend).join(volumes, volumes.c.pool_id == pools.c.id).where(pools.c.frozen)
)
_FROZEN = {
    "volume": _OF_VOLUME.where(volumes.c.id == bindparam("wanted")),
    "snapshot": _OF_VOLUME.join(snapshots, snapshots.c.volume_id == volumes.c.id).where(
        snapshots.c.id == bindparam("wanted")
    ),
}


def backends(conn: Connection) -> Sequence[Any]:
    """One row per host and back end, with zone, cluster, enabled, answers, reachable, disabled_reason and last_seen.

    `answers`: its host does. A back end that its host can not use now counts as one that can not be reached. A host
    without any has a row, too.
    """
    query = (
        select(
            hosts.c.id.label("host_id"),
            pools.c.backend,
            hosts.c.availability_zone,
            hosts.c.enabled,
            hosts.c.reachable.label("answers"),
            and_(
                hosts.c.reachable, func.max(case((pools.c.id.is_(None), 1), (pools.c.present, 1), else_=0)) == 1
            ).label("reachable"),
            hosts.c.disabled_reason,
            hosts.c.last_seen,
            func.min(case((pools.c.disabled, 1), else_=0)).label("disabled"),
            func.max(case((pools.c.frozen, 1), else_=0)).label("frozen"),
            func.max(pools.c.cluster_name).label("cluster_name"),
        )
        .select_from(hosts.outerjoin(pools, pools.c.host_id == hosts.c.id))
        .group_by(hosts.c.id, pools.c.backend)
        .order_by(hosts.c.id, pools.c.backend)
    )
    return conn.execute(query).all()


def set_enabled(conn: Connection, name: str, *, enabled: bool, reason: str | None = None) -> None:
    """Whether `HOST` or `HOST@BACKEND` takes new volumes; raises NotFound.

    The only back end of a host stands for the host, whose row keeps the reason.
    """
    host_id, _, backend = name.partition("@")
    found = {
        row.backend for row in conn.execute(select(pools.c.backend).where(pools.c.host_id == host_id, pools.c.present))
    }
    if backend and backend not in found:
        raise NotFound(noun="Service", id=name)
    if backend and found != {backend}:
        mine = (pools.c.host_id == host_id, pools.c.backend == backend)
        conn.execute(update(pools).where(*mine).values(disabled=not enabled))
        return
    try:
        fleet.set_enabled(conn, host_id, enabled=enabled, reason=reason)
    except NotFound:
        raise NotFound(noun="Service", id=name) from None


def check_known(conn: Connection, name: str) -> None:
    """Raises NotFound where no host has the back end `HOST@BACKEND` (or there is no `HOST` with one)."""
    host_id, _, backend = name.partition("@")
    mine = (pools.c.host_id == host_id, pools.c.present, *((pools.c.backend == backend,) if backend else ()))
    if conn.execute(select(pools.c.id).where(*mine).limit(1)).first() is None:
        raise NotFound(noun="Service", id=name)


class BackEndFrozen(Invalid):
    code = "services.frozen"
    sentence = "Back end {backend} is frozen: what lies on it is not changed."
    hint = "It can still be attached and detached. An administrator thaws it: brickyard service thaw {backend}."


def set_frozen(conn: Connection, name: str, *, frozen: bool) -> None:
    """Whether what lies on `HOST` or `HOST@BACKEND` may be changed; a frozen one is disabled, too. Raises NotFound."""
    set_enabled(conn, name, enabled=not frozen, reason="frozen")
    host_id, _, backend = name.partition("@")
    mine = (pools.c.host_id == host_id, *((pools.c.backend == backend,) if backend else ()))
    conn.execute(update(pools).where(*mine).values(frozen=frozen))


def check_thawed(conn: Connection, resource_type: str, resource_id: str) -> None:
    """Raises BackEndFrozen for a volume, or a snapshot of one, that lies on a frozen back end."""
    if resource_type not in _FROZEN:
        return
    row = conn.execute(_FROZEN[resource_type], {"wanted": resource_id}).first()
    if row is not None:
        raise BackEndFrozen(backend=f"{row.host_id}@{row.backend}")


def zones(conn: Connection) -> dict[str, bool]:
    """Availability zones, and whether any enabled host of each can be reached."""
    up = func.max(case((and_(hosts.c.enabled, hosts.c.reachable), 1), else_=0))
    query = select(hosts.c.availability_zone, up).group_by(hosts.c.availability_zone)
    return {name: bool(available) for name, available in conn.execute(query)}
