"""Promising space of a pool and giving it back: conditional updates, so that nothing is promised twice.

The condition is the table of `coordinator.scheduler.pool`, checked on the row as it is now, by whichever coordinator.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    String,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from coordinator.scheduler.pool import Calculation
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.together import hopeful

if TYPE_CHECKING:
    from coordinator.scheduler.held import Held

# Built once: putting a statement together costs more than running it, and these run in every create.
_RESERVED = pools.c.total_bytes * pools.c.reserved_percent // 100
_USABLE = pools.c.total_bytes - _RESERVED
_PHYSICAL = pools.c.free_bytes - _RESERVED
_JUDGED_THIN = and_(pools.c.thin, not_(bindparam("thick", type_=Boolean)))


def _by_kind(thin: ColumnElement[Any], thick: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((_JUDGED_THIN, thin), else_=thick)


_MORE = bindparam("more", type_=BigInteger)
_PROMISED = pools.c.provisioned_bytes + _MORE
_LEFT = pools.c.provisioned_bytes - bindparam("less", type_=BigInteger)


def _unless(name: str, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """For thin promises an operator may pass over one of the conditions."""
    return or_(and_(_JUDGED_THIN, bindparam(name, type_=Boolean)), condition)


_PROMISABLE = _by_kind(_USABLE * pools.c.max_over_subscription, _USABLE)
_MEASURED = _by_kind(_PHYSICAL * pools.c.max_over_subscription, _PHYSICAL)
_FITS = (_unless("by_free", _PROMISABLE >= _PROMISED), _unless("by_promises", _MEASURED >= _MORE))
LEFT = (
    _JUDGED_THIN.label("judged_thin"),
    (_PROMISABLE - pools.c.provisioned_bytes).label("promisable"),
    _MEASURED.label("physical"),
)
"""What the same conditions leave, for who holds the row."""
_USED = (pools.c.present, not_(pools.c.disabled))
_MINE = (pools.c.id == bindparam("wanted"), *_USED)
_OPEN = exists().where(hosts.c.id == pools.c.host_id, hosts.c.enabled, hosts.c.reachable)
OPEN = (*_USED, _OPEN)
_CLUSTER = pools.c.cluster_name
_CLAIM = update(pools).where(*_MINE, *_FITS).values(provisioned_bytes=_PROMISED).returning(_CLUSTER)
_PLACE = update(pools).where(*_MINE, *_FITS, _OPEN).values(provisioned_bytes=_PROMISED).returning(_CLUSTER)
_CLAIM_ANYHOW = update(pools).where(*_MINE).values(provisioned_bytes=_PROMISED).returning(_CLUSTER)
_PLACE_ANYHOW = update(pools).where(*_MINE, _OPEN).values(provisioned_bytes=_PROMISED).returning(_CLUSTER)
_LESS = {"provisioned_bytes": case((_LEFT > 0, _LEFT), else_=0)}
_RELEASE = update(pools).where(pools.c.id == bindparam("wanted")).values(**_LESS).returning(_CLUSTER)
# Other hosts that serve the same space: what is promised of it is promised for all of them.
_SIBLINGS = (
    bindparam("cluster") == _CLUSTER, pools.c.id != bindparam("wanted"), pools.c.name == bindparam("pool"),
)  # fmt: skip
_CLAIM_THERE = update(pools).where(*_SIBLINGS).values(provisioned_bytes=_PROMISED)
_RELEASE_THERE = update(pools).where(*_SIBLINGS).values(**_LESS)


@cache
def _place_free() -> ReturningUpdate[Any]:
    """Of several as good, one that nobody is changing now: waiting for a row costs more than the difference."""
    from sqlalchemy.dialects.postgresql import ARRAY  # 3 MiB that a site on SQLite does without

    any_of = bindparam("any_of", type_=ARRAY(String))
    free = (
        select(pools.c.id)
        .where(pools.c.id == any_(any_of), *_USED, *_FITS, _OPEN)
        .order_by(func.array_position(any_of, pools.c.id))
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
        .scalar_subquery()
    )
    return (
        update(pools)
        .where(pools.c.id == free, *_USED, *_FITS)
        .values(provisioned_bytes=_PROMISED)
        .returning(pools.c.id, _CLUSTER)
    )


def claim(
    conn: Connection, pool_id: str, more: int, *, thick: bool = False, by: Calculation | None = "both"
) -> bool:  # fmt: skip
    """Promise `more` bytes to what lies in the pool already; False when they do not fit. By None all does."""
    if by is None:
        return _claimed(conn, _CLAIM_ANYHOW, pool_id, {"more": more})
    return _claimed(conn, _CLAIM, pool_id, {"more": more, "thick": thick, **_looked_at(by)})


def claim_new(
    conn: Connection, pool_id: str, more: int, *, thick: bool = False, by: Calculation | None = "both"
) -> bool:  # fmt: skip
    """Promise `more` bytes to something new: the host must also answer and take new volumes."""
    mine = _held(conn)
    if mine is not None and by is not None:
        return mine.take(conn, pool_id, more, thick=thick, by=by)
    if by is None:
        return _claimed(conn, _PLACE_ANYHOW, pool_id, {"more": more})
    return _claimed(conn, _PLACE, pool_id, {"more": more, "thick": thick, **_looked_at(by)})


def claim_any(
    conn: Connection, pool_ids: Sequence[str], more: int, *, thick: bool = False, by: Calculation = "both"
) -> str | None:  # fmt: skip
    """`claim_new` in the first of these pools that nobody else is claiming from now; None when there is none.

    For a database that has several writers; who gets None may still be let in by `claim_new`, which waits.
    """
    mine = _held(conn)
    if mine is not None:
        return mine.take_any(conn, pool_ids, more, thick=thick, by=by)
    asked = {"any_of": list(pool_ids), "more": more, "thick": thick, **_looked_at(by)}
    row = conn.execute(_place_free(), asked).one_or_none()
    if row is None:
        return None
    if row.cluster_name is not None:
        claim_there(conn, row.cluster_name, row.id, more)
    return str(row.id)


def _held(conn: Connection) -> Held | None:
    if not hopeful(conn):
        return None
    from coordinator.scheduler.held import held

    return held(conn)


def held_already(conn: Connection) -> Collection[str]:
    """The pools that the caller's transaction has claimed from, where these are held until its end."""
    mine = _held(conn)
    return () if mine is None else mine.left.keys()


def claim_there(conn: Connection, cluster: str, pool_id: str, more: int) -> None:
    """Promise to the other hosts of a cluster what was promised to one."""
    conn.execute(_CLAIM_THERE, {**_shared(cluster, pool_id), "more": more})


def _looked_at(by: Calculation) -> dict[str, bool]:
    return {"by_promises": by == "standard", "by_free": by == "cinder"}


def _claimed(conn: Connection, statement: ReturningUpdate[Any], pool_id: str, asked: dict[str, Any]) -> bool:
    row = conn.execute(statement, {"wanted": pool_id, **asked}).one_or_none()
    if row is not None and row.cluster_name is not None:
        claim_there(conn, row.cluster_name, pool_id, asked["more"])
    return row is not None


def _shared(cluster: str, pool_id: str) -> dict[str, str]:
    return {"cluster": cluster, "wanted": pool_id, "pool": pool_id.partition("#")[2]}


def release(conn: Connection, pool_id: str | None, less: int) -> None:
    """Give back a promise; the fleet recomputes the sum from rows at each poll."""
    if pool_id is not None and less:
        row = conn.execute(_RELEASE, {"wanted": pool_id, "less": less}).one_or_none()
        if row is not None and row.cluster_name is not None:
            conn.execute(_RELEASE_THERE, {**_shared(row.cluster_name, pool_id), "less": less})
