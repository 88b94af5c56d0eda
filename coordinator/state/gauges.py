"""Numbers for `/metrics` that are read from rows at each scrape, each by an indexed or small query."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from coordinator.state.operations import is_active
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts, issues, pools
from coordinator.state.tables.operations import operations


@dataclass(frozen=True, slots=True)
class Gauges:
    """Operations under way by (kind, state): how many, age of the oldest in seconds. Sizes are bytes."""

    operations: dict[tuple[str, str], tuple[int, float]]
    waiting: dict[str, int]
    hosts: dict[str, int]
    issues: dict[str, tuple[int, float]]
    pools: dict[str, dict[str, int]]


def gauges(conn: Connection) -> Gauges:
    """All of them."""
    now, held = utcnow(), operations
    counted = select(
        held.c.kind, held.c.state, func.count(), func.min(held.c.created_at), func.count(held.c.waiting)
    ).where(is_active()).group_by(held.c.kind, held.c.state)  # fmt: skip
    rows = conn.execute(counted).all()
    waiting: dict[str, int] = {}
    for kind, _, _, _, stuck in rows:
        waiting[kind] = waiting.get(kind, 0) + stuck
    up = func.sum(case((hosts.c.reachable, 1), else_=0))
    total, reachable = conn.execute(select(func.count(), func.coalesce(up, 0))).one()
    found = select(issues.c.code, func.count(), func.min(issues.c.first_seen)).where(issues.c.closed_at.is_(None))
    return Gauges(
        operations={(kind, state): (count, _age(now, oldest)) for kind, state, count, oldest, _ in rows},
        waiting=waiting,
        hosts={"reachable": int(reachable), "unreachable": total - int(reachable)},
        issues={code: (count, _age(now, first)) for code, count, first in conn.execute(found.group_by(issues.c.code))},
        pools={
            row.id: {"total": row.total_bytes, "free": row.free_bytes, "provisioned": row.provisioned_bytes}
            for row in conn.execute(select(pools).where(pools.c.present))
        },
    )


def _age(now: datetime.datetime, then: datetime.datetime) -> float:
    return max(0.0, (now - then).total_seconds())
