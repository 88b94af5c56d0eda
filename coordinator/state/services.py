"""Hosts and their back ends in the shape of Block Storage's services and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, case, func, select, update

from agent.base.errors import NotFound
from coordinator.state.tables.fleet import hosts, pools


def backends(conn: Connection) -> Sequence[Any]:
    """One row per host and back end, with zone, cluster, enabled, reachable, disabled_reason and last_seen."""
    query = (
        select(
            hosts.c.id.label("host_id"),
            pools.c.backend,
            hosts.c.availability_zone,
            hosts.c.enabled,
            hosts.c.reachable,
            hosts.c.disabled_reason,
            hosts.c.last_seen,
            func.min(case((pools.c.disabled, 1), else_=0)).label("disabled"),
            func.max(pools.c.cluster_name).label("cluster_name"),
        )
        .select_from(hosts.outerjoin(pools, and_(pools.c.host_id == hosts.c.id, pools.c.present)))
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
    values = {"enabled": enabled, "disabled_reason": None if enabled else reason}
    if conn.execute(update(hosts).where(hosts.c.id == host_id).values(**values)).rowcount == 0:
        raise NotFound(noun="Service", id=name)


def zones(conn: Connection) -> dict[str, bool]:
    """Availability zones, and whether any enabled host of each can be reached."""
    up = func.max(case((and_(hosts.c.enabled, hosts.c.reachable), 1), else_=0))
    query = select(hosts.c.availability_zone, up).group_by(hosts.c.availability_zone)
    return {name: bool(available) for name, available in conn.execute(query)}
