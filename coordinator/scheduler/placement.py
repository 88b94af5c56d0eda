"""Choose a pool and claim its space in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, bindparam, case, select, update

from coordinator.scheduler.errors import NoPool, PoolsAway
from coordinator.state.tables.fleet import hosts, pools

_OWN_SPECS = frozenset({"volume_backend_name"})
_MAX_NAMED = 20


def _limit() -> ColumnElement[Any]:
    usable = pools.c.total_bytes * (100 - pools.c.reserved_percent) / 100
    return case((pools.c.thin, usable * pools.c.max_over_subscription), else_=usable)


# Built once: putting a statement together costs more than running it, and these run in every create.
_ALL = (
    select(pools, hosts.c.reachable, hosts.c.enabled, hosts.c.availability_zone, hosts.c.disabled_reason)
    .join(hosts, hosts.c.id == pools.c.host_id)
    .order_by(pools.c.id)
)
_MORE = pools.c.provisioned_bytes + bindparam("more", type_=BigInteger)
_LEFT = pools.c.provisioned_bytes - bindparam("less", type_=BigInteger)
_CLAIM = (
    update(pools)
    .where(pools.c.id == bindparam("wanted"), pools.c.present, ~pools.c.disabled, _limit() >= _MORE)
    .values(provisioned_bytes=_MORE)
)
_RELEASE = (
    update(pools).where(pools.c.id == bindparam("wanted")).values(provisioned_bytes=case((_LEFT > 0, _LEFT), else_=0))
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be placed. `pool_id` pins it to the pool of its source."""

    device_bytes: int
    availability_zone: str | None = None
    pool_id: str | None = None
    extra_specs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    pool_id: str
    host_id: str
    backend: str
    pool: str


def place(conn: Connection, request: Request) -> Placement:
    """Claim the best pool; raises NoPool that names for each pool the first rule it failed.

    PoolsAway when a host that does not answer is all that is missing.
    """
    candidates: list[Row[Any]] = []
    refused: list[str] = []
    away = False
    for row in _pools(conn):
        reason = _refusal(row, request, reachable=row.reachable)
        if reason is None:
            candidates.append(row)
        else:
            refused.append(f"{row.id} {reason}")
            away = away or _refusal(row, request, reachable=True) is None
    for row in sorted(candidates, key=_weight, reverse=True):
        if claim(conn, row.id, request.device_bytes):
            return Placement(row.id, row.host_id, row.backend, row.name)
        refused.append(f"{row.id} is full")
    told = "; ".join(refused[:_MAX_NAMED]) or "no host is enrolled"
    raise PoolsAway(reasons=told) if away else NoPool(reasons=told)


def claim(conn: Connection, pool_id: str, more: int) -> bool:
    """Promise `more` bytes of a pool, if it has them; the condition and the change are one statement."""
    return conn.execute(_CLAIM, {"wanted": pool_id, "more": more}).rowcount == 1


def release(conn: Connection, pool_id: str | None, less: int) -> None:
    """Give back a promise; the fleet recomputes the sum from rows at each poll."""
    if pool_id is None:
        return
    if less:
        conn.execute(_RELEASE, {"wanted": pool_id, "less": less})


def _pools(conn: Connection) -> Sequence[Row[Any]]:
    return conn.execute(_ALL).all()


def _refusal(row: Row[Any], request: Request, *, reachable: bool) -> str | None:
    if request.pool_id is not None and row.id != request.pool_id:
        return "does not hold the source"
    if not row.enabled or row.disabled:
        return f"is disabled ({row.disabled_reason or 'no reason given'})"
    if not reachable or not row.present:
        return "can not be reached"
    if request.availability_zone is not None and row.availability_zone != request.availability_zone:
        return f"is in availability zone {row.availability_zone}"
    for key, wanted in request.extra_specs.items():
        if not _has(row, key, wanted):
            return f"lacks {key}={wanted}"
    if row.free_bytes < request.device_bytes and not row.thin:
        return f"has {row.free_bytes >> 30} GiB free"
    usable = row.total_bytes * (100 - row.reserved_percent) / 100 * (row.max_over_subscription if row.thin else 1)
    if row.provisioned_bytes + request.device_bytes > usable:
        return f"would be over-committed ({row.provisioned_bytes >> 30} GiB of {int(usable) >> 30} GiB promised)"
    return None


def _has(row: Row[Any], key: str, wanted: str) -> bool:
    scope, _, name = key.rpartition(":")
    if scope not in {"", "capabilities"}:
        return True
    if name in _OWN_SPECS:
        return wanted in {row.backend, str(row.reported.get("volume_backend_name"))}
    value = row.reported.get(name)
    operator, _, operand = wanted.partition(" ")
    if operator == "<is>":
        return bool(value) == (operand.strip().lower() == "true")
    return value is not None and str(value).lower() == wanted.lower()


def lacking(conn: Connection, pool_id: str, extra_specs: Mapping[str, str]) -> str | None:
    """What of these extra specs a pool does not have, in words; None when it has them all."""
    row = next((row for row in _pools(conn) if row.id == pool_id), None)
    if row is None:
        return "is not known any more"
    return next((f"lacks {key}={wanted}" for key, wanted in extra_specs.items() if not _has(row, key, wanted)), None)


def _weight(row: Row[Any]) -> float:
    """Most free space first, counting what is promised but not written yet."""
    usable = row.total_bytes * (row.max_over_subscription if row.thin else 1)
    share = (float(usable) - row.provisioned_bytes) / max(1.0, float(row.total_bytes))
    return float(share + row.free_bytes / (1 << 62))
