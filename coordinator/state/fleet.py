"""Hosts and pools as last reported. Where a host is, and its pinned key, stand in `enrolled_hosts`."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, select, update

from agent.base.errors import NotFound
from agent.wire.results import HostFacts, Pool, RbdAccess, pool_address, ratio_in_force
from coordinator.state import clusters, evictions, volumes
from coordinator.state.locks import held
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.enrolment import enrolled_hosts
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.tables.volumes import volumes as volume_table

_AT_ONCE = 500
_DRAINED = select(hosts.c.disabled_reason).where(hosts.c.id == bindparam("wanted"), hosts.c.drained_at.is_not(None))


def ensure_hosts(conn: Connection) -> None:
    """Give every enrolled host a row here."""
    rowless = ~exists().where(hosts.c.id == enrolled_hosts.c.name)
    names = list(conn.execute(select(enrolled_hosts.c.name).where(rowless)).scalars())
    if names:
        conn.execute(insert(hosts), [{"id": name} for name in names])
        for name in {row.host_id for row in evictions.standing(conn)} & set(names):
            evictions.returned(conn, name)


def forget(conn: Connection, host_id: str) -> None:
    """Drop a host and its pools; what lies on them keeps its rows."""
    conn.execute(delete(pools).where(pools.c.host_id == host_id))
    conn.execute(delete(hosts).where(hosts.c.id == host_id))


def get(conn: Connection, host_id: str) -> Row[Any]:
    """One host with its address; raises NotFound."""
    row = conn.execute(_joined().where(hosts.c.id == host_id)).one_or_none()
    if row is None:
        raise NotFound(noun="Host", id=host_id)
    return row


def listing(conn: Connection) -> Sequence[Row[Any]]:
    return conn.execute(_joined().order_by(hosts.c.id)).all()


def _joined() -> Any:
    where = (enrolled_hosts.c.address, enrolled_hosts.c.control_port, enrolled_hosts.c.data_port)
    return select(hosts, *where).join(enrolled_hosts, enrolled_hosts.c.name == hosts.c.id)


def set_enabled(conn: Connection, host_id: str, *, enabled: bool, reason: str | None = None) -> None:
    """Whether new volumes may be placed there; one that is enabled is not drained any more."""
    values: dict[str, Any] = {"enabled": enabled, "disabled_reason": None if enabled else reason}
    if enabled:
        values["drained_at"] = None
    if conn.execute(update(hosts).where(hosts.c.id == host_id).values(**values, updated_at=utcnow())).rowcount == 0:
        raise NotFound(noun="Host", id=host_id)


def drain(conn: Connection, host_id: str, reason: str | None) -> None:
    """Begin nothing there any more, and place nothing there; raises NotFound."""
    set_enabled(conn, host_id, enabled=False, reason=reason)
    undrained = (hosts.c.id == host_id, hosts.c.drained_at.is_(None))
    conn.execute(update(hosts).where(*undrained).values(drained_at=utcnow()))


def drained(conn: Connection, host_id: str) -> str | None:
    """Why nothing is begun on this host ("" where nobody said); None where it is."""
    row = conn.execute(_DRAINED, {"wanted": host_id}).first()
    return None if row is None else row.disabled_reason or ""


def set_reachable(conn: Connection, host_id: str, *, reachable: bool) -> None:
    """Note a change of reachability, with its time; nothing when it was so already."""
    conn.execute(
        update(hosts)
        .where(hosts.c.id == host_id, hosts.c.reachable != reachable)
        .values(reachable=reachable, reachable_since=utcnow())
    )


def silent(conn: Connection) -> set[str]:
    """Hosts that did not answer their last poll, or never did."""
    return set(conn.execute(select(hosts.c.id).where(~hosts.c.reachable)).scalars())


def last_heard(conn: Connection) -> dict[str, datetime.datetime]:
    """When each host that answers did so last, as its watcher has noted."""
    query = select(hosts.c.id, hosts.c.last_seen).where(hosts.c.reachable, hosts.c.last_seen.is_not(None))
    return {row.id: row.last_seen for row in conn.execute(query)}


def seen(conn: Connection, host_ids: Collection[str]) -> int:
    """These hosts have answered just now; how many of them are known (others were evicted while they were asked)."""
    now, names, known = utcnow(), sorted(host_ids), 0
    for start in range(0, len(names), _AT_ONCE):
        theirs = hosts.c.id.in_(names[start : start + _AT_ONCE])
        known += conn.execute(update(hosts).where(theirs).values(last_seen=now)).rowcount
        conn.execute(update(hosts).where(theirs, ~hosts.c.reachable).values(reachable=True, reachable_since=now))
    return known


def report(conn: Connection, host_id: str, facts: HostFacts | None, found: Sequence[Pool] | None) -> None:
    """Take in what a host told: its facts, and its pools with the promised space recomputed: rows and what is foreign.

    None where it has nothing new to tell. Only pools whose row would change are written.
    """
    if not seen(conn, [host_id]):
        return
    if facts is not None:
        told = {"keeps_images": facts.keeps_images, "facts": facts.model_dump(mode="json")}
        conn.execute(update(hosts).where(hosts.c.id == host_id).values(**told))
        if facts.backends is not None:
            _drop_pools(conn, host_id, facts.backends)
    if found is None:
        return
    columns = (pools.c.id, pools.c.reported, pools.c.provisioned_bytes, pools.c.present)
    stored = {row.id: tuple(row)[1:] for row in conn.execute(select(*columns).where(pools.c.host_id == host_id))}
    promised = volumes.in_pools(conn, host_id)
    present, fresh = [], []
    for pool in found:
        pool_id = f"{host_id}@{pool.backend}#{pool.name}"
        present.append(pool_id)
        reported, cluster = pool.model_dump(mode="json"), clusters.name_of(pool)
        own = promised.get(pool_id, 0) if cluster is None else volumes.in_pool(conn, pool_id, cluster)
        own += pool.foreign_bytes
        if pool_id not in stored and cluster is None:
            fresh.append({**_place(pool_id, host_id, pool), **_values(pool, own, None)})
        elif stored.get(pool_id) != (reported, own, True):
            _put_pool(conn, pool_id, host_id, pool)
    if fresh:  # Of a pool that has no row nothing can have been claimed meanwhile.
        conn.execute(insert(pools), fresh)
    if stored.keys() - set(present):
        gone = (pools.c.host_id == host_id, pools.c.present, pools.c.id.not_in(present))
        conn.execute(update(pools).where(*gone).values(present=False))


def _drop_pools(conn: Connection, host_id: str, configured: Sequence[str]) -> None:
    """Pools of back ends that the host has no more are forgotten once no volume is on them."""
    empty = ~exists().where(
        volume_table.c.pool_id == pools.c.id, volume_table.c.host_id == host_id, ~volume_table.c.deleted
    )
    conn.execute(delete(pools).where(pools.c.host_id == host_id, pools.c.backend.not_in(configured), empty))


def _put_pool(conn: Connection, pool_id: str, host_id: str, pool: Pool) -> None:
    cluster = clusters.joined(conn, pool_id, pool)
    # Held before the sum is made: a claim that comes meanwhile adds to the new number, not to the old one.
    conn.execute(held(conn, select(pools.c.id).where(pools.c.id == pool_id)))
    promised = volumes.in_pool(conn, pool_id, cluster) + pool.foreign_bytes
    values = _values(pool, promised, cluster)
    changed = conn.execute(update(pools).where(pools.c.id == pool_id).values(**values))
    if changed.rowcount == 0:
        conn.execute(
            insert(pools).values(
                **_place(pool_id, host_id, pool),
                **values,
                disabled=cluster is not None and clusters.is_disabled(conn, cluster),
                frozen=cluster is not None and clusters.is_frozen(conn, cluster),
            )
        )


def _place(pool_id: str, host_id: str, pool: Pool) -> dict[str, Any]:
    return {"id": pool_id, "host_id": host_id, "backend": pool.backend, "name": pool.name, "driver": pool.driver}


def _values(pool: Pool, promised: int, cluster: str | None) -> dict[str, Any]:
    return {
        "total_bytes": pool.total_bytes,
        "free_bytes": pool.free_bytes,
        "provisioned_bytes": promised,
        "thin": pool.thin,
        "reserved_percent": pool.reserved_percent,
        "max_over_subscription": _ratio(pool, promised) if pool.thin else 1.0,
        "reported": pool.model_dump(mode="json"),
        "present": True,
        "cluster_name": cluster,
        "updated_at": utcnow(),
    }


def address(row: Row[Any]) -> str:
    """How a pool's host calls it."""
    return pool_address(row.backend, row.name)


def protocols_of(conn: Connection, pool_id: str | None) -> tuple[str, ...]:
    """How volumes of a pool can be reached, as its host last told."""
    told = conn.execute(select(pools.c.reported).where(pools.c.id == pool_id)).scalar_one_or_none()
    return tuple((told or {}).get("protocols", ()))


def rbd_access_of(conn: Connection, pool_id: str | None) -> RbdAccess | None:
    """How clients of a Ceph cluster open volumes of the pool; None where it is not in one."""
    told = conn.execute(select(pools.c.reported).where(pools.c.id == pool_id)).scalar_one_or_none()
    access = (told or {}).get("rbd")
    return None if access is None else RbdAccess.model_validate(access)


def _ratio(pool: Pool, promised: int) -> float:
    known = {"total": pool.total_bytes, "free": pool.free_bytes, "promised": promised}
    return ratio_in_force(pool.max_over_subscription, **known)


def pools_of(conn: Connection, host_id: str | None = None) -> Sequence[Row[Any]]:
    """Pools with the state of their host."""
    of_host = (hosts.c.reachable, hosts.c.enabled, hosts.c.disabled_reason, hosts.c.availability_zone)
    query = select(pools, *of_host).join(hosts, hosts.c.id == pools.c.host_id)
    if host_id is not None:
        query = query.where(pools.c.host_id == host_id)
    return conn.execute(query.order_by(pools.c.id)).all()
