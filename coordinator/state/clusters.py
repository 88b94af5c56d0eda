"""Clusters: back ends that several hosts serve, named `NAME@BACKEND`. The members are the pools that say so.

A volume of a cluster has one host that serves it now. Another one takes over what is idle as soon as that one does not
answer; what is attached stays, for the kernel of a host whose agent is dead may well go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, exists, func, insert, or_, select, update

from agent.base.errors import NotFound
from agent.wire.results import Pool
from coordinator.lifecycle.snapshot import SNAPSHOT
from coordinator.lifecycle.volume import VOLUME
from coordinator.state import volumes as volume_rows
from coordinator.state.locks import held
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import clusters, evictions, hosts, pools
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes

# By what it is not, which no index answers: at a million volumes nearly all are idle.
_NOT_IDLE = tuple(sorted(VOLUME.transient | {"in-use", "attaching", "detaching", "reserved", "deleted"}))
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Cluster:
    """`members` count the hosts that have its back end, `down` those of them that do not answer.

    `frozen`: what lies there is not changed, whichever member serves it.
    """

    name: str
    disabled: bool
    disabled_reason: str | None
    frozen: bool
    members: int
    down: int
    last_seen: Any
    created_at: Any
    updated_at: Any

    @property
    def is_up(self) -> bool:
        return self.members > self.down


def name_of(pool: Pool) -> str | None:
    """The cluster that a pool says to belong to."""
    return None if pool.cluster_name is None else f"{pool.cluster_name}@{pool.backend}"


def joined(conn: Connection, pool_id: str, pool: Pool) -> str | None:
    """The cluster that a pool says to belong to, its row made where it is new; None for a pool of one host.

    Volumes of a pool that belonged to none are the cluster's from now on. Those of another cluster stay there.
    """
    name = name_of(pool)
    if name is None:
        return None
    if conn.execute(select(clusters.c.name).where(clusters.c.name == name)).first() is None:
        conn.execute(insert(clusters).values(name=name))
    before = conn.execute(select(pools.c.cluster_name).where(pools.c.id == pool_id)).first()
    if before is not None and before.cluster_name is None:
        mine = (volumes.c.pool_id == pool_id, volumes.c.cluster_name.is_(None), ~volumes.c.deleted)
        conn.execute(
            update(volumes).where(volumes.c.host_id == pool_id.partition("@")[0], *mine).values(cluster_name=name)
        )
    return name


def is_disabled(conn: Connection, name: str) -> bool:
    return bool(conn.execute(select(clusters.c.disabled).where(clusters.c.name == name)).scalar_one_or_none())


def listing(conn: Connection) -> list[Cluster]:
    """All clusters that have, or had, members; by name."""
    there = and_(pools.c.cluster_name == clusters.c.name, pools.c.present)
    query = (
        select(
            clusters,
            (func.coalesce(func.min(case((pools.c.frozen, 1), else_=0)), 0) == 1).label("frozen"),
            func.count(func.distinct(pools.c.host_id)).label("members"),
            func.count(func.distinct(case((~hosts.c.reachable, pools.c.host_id)))).label("down"),
            func.max(hosts.c.last_seen).label("last_seen"),
        )
        .select_from(clusters.outerjoin(pools, there).outerjoin(hosts, hosts.c.id == pools.c.host_id))
        .group_by(*clusters.c)
        .order_by(clusters.c.name)
    )
    return [_cluster(row) for row in conn.execute(query)]


def get(conn: Connection, name: str) -> Cluster:
    """Raises NotFound."""
    found = next((one for one in listing(conn) if one.name == name), None)
    if found is None:
        raise NotFound(noun="Cluster", id=name[:255])
    return found


def _cluster(row: Row[Any]) -> Cluster:
    values = {name: getattr(row, name) for name in Cluster.__dataclass_fields__}
    return Cluster(**{**values, "frozen": bool(row.frozen)})


def set_enabled(conn: Connection, name: str, *, enabled: bool, reason: str | None = None) -> None:
    """Whether new volumes may be placed on the cluster, whoever serves them; raises NotFound."""
    values = {"disabled": not enabled, "disabled_reason": None if enabled else reason, "updated_at": utcnow()}
    if conn.execute(update(clusters).where(clusters.c.name == name).values(**values)).rowcount == 0:
        raise NotFound(noun="Cluster", id=name[:255])
    conn.execute(update(pools).where(pools.c.cluster_name == name).values(disabled=not enabled))


def is_frozen(conn: Connection, name: str) -> bool:
    """Whether all that serve it are: whoever joins them then is, too."""
    frozen = select(func.min(case((pools.c.frozen, 1), else_=0))).where(pools.c.cluster_name == name)
    return bool(conn.execute(frozen).scalar_one() == 1)


def set_frozen(conn: Connection, name: str, *, frozen: bool) -> None:
    """Whether what lies on the cluster may be changed; a frozen one is disabled, too. Raises NotFound."""
    set_enabled(conn, name, enabled=not frozen, reason="frozen")
    conn.execute(update(pools).where(pools.c.cluster_name == name).values(frozen=frozen))


def members(conn: Connection, name: str, pool: str, *, takes_new: bool = False) -> list[Row[Any]]:
    """The pools (id, host_id) that may serve this part of the cluster now, by host; `takes_new`: also new volumes."""
    there = (pools.c.cluster_name == name, pools.c.name == pool, hosts.c.drained_at.is_(None))
    query = select(pools.c.id, pools.c.host_id).where(_serving(), *there)
    if takes_new:
        query = query.where(hosts.c.enabled, ~pools.c.disabled)
    return list(conn.execute(query.order_by(pools.c.host_id)))


def served(conn: Connection, *, but: str) -> list[str]:
    """The clusters that any host other than `but` serves."""
    query = select(pools.c.cluster_name).where(_serving(), pools.c.cluster_name.is_not(None), pools.c.host_id != but)
    return list(conn.execute(query.distinct()).scalars())


def _serving() -> ColumnElement[bool]:
    return and_(pools.c.present, hosts.c.id == pools.c.host_id, hosts.c.reachable)


def chosen(serving: Sequence[Row[Any]], volume_id: str) -> Row[Any] | None:
    """One of these for a volume, always the same while they are the same; the volumes are spread among them."""
    if not serving:
        return None
    return max(serving, key=lambda row: hashlib.sha256(f"{row.host_id} {volume_id}".encode()).digest())


def take_over(conn: Connection, volume_id: str, lost: str, prefer: str | None = None) -> bool:
    """Let another member serve a volume instead of `lost`; False when there is none, or the volume is attached."""
    row = conn.execute(held(conn, select(volumes).where(volumes.c.id == volume_id))).one_or_none()
    if row is None or row.cluster_name is None or row.host_id is None:
        return False
    if row.host_id != lost:
        return True
    if conn.execute(select(exists().where(_attached(volume_id)))).scalar_one():
        return False
    serving = [one for one in members(conn, row.cluster_name, row.pool) if one.host_id != lost]
    preferred = [one for one in serving if one.host_id == prefer]
    found = chosen(preferred or serving, volume_id)
    if found is None:
        return False
    volume_rows.set_values(conn, volume_id, host_id=found.host_id, pool_id=found.id)
    return True


def bring(conn: Connection, volume_id: str, host_id: str) -> None:
    """Let this host serve an idle volume, where it is a member of the volume's cluster."""
    query = select(volumes).where(volumes.c.id == volume_id, volumes.c.cluster_name.is_not(None), _idle())
    row = conn.execute(held(conn, query)).one_or_none()
    if row is None or row.host_id == host_id:
        return
    here = [one for one in members(conn, row.cluster_name, row.pool) if one.host_id == host_id]
    if here:
        volume_rows.set_values(conn, volume_id, host_id=host_id, pool_id=here[0].id)


def _attached(volume_id: Any) -> ColumnElement[bool]:
    return and_(attachments.c.volume_id == volume_id, ~attachments.c.deleted)


def _idle() -> ColumnElement[bool]:
    """Nobody works on the volume, and nothing is attached."""
    at_work = exists().where(
        snapshots.c.volume_id == volumes.c.id, snapshots.c.status.in_(sorted(SNAPSHOT.transient)), ~snapshots.c.deleted
    )
    return and_(
        ~volumes.c.deleted, volumes.c.status.not_in(_NOT_IDLE), volumes.c.host_id.is_not(None), ~at_work,
        ~exists().where(_attached(volumes.c.id)),
    )  # fmt: skip


def spread_idle(conn: Connection, volume_id: str | None = None) -> int:
    """Let living members serve what idle volumes (or this one) the others, or drained ones, have; how many moved."""
    away = select(hosts.c.id).where(or_(~hosts.c.reachable, hosts.c.drained_at.is_not(None)))
    evicted = select(evictions.c.host_id).where(evictions.c.returned_at.is_(None))
    query = select(volumes.c.id, volumes.c.host_id).where(
        volumes.c.cluster_name.is_not(None), _idle(), volumes.c.host_id.in_(away.union(evicted))
    )
    if volume_id is not None:
        query = query.where(volumes.c.id == volume_id)
    moved = 0
    for row in conn.execute(query.limit(_AT_ONCE)).all():
        moved += take_over(conn, row.id, row.host_id)
    return moved
