"""Pools that one hopeful transaction holds: many volumes are promised space there by one reading and one update.

A pool's row is held from the moment it is first looked at, so what it has left is reckoned here; what was promised is
written at the end. One that another writer has is passed over: waiting for a row costs more than the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, String, any_, bindparam, func, select

from coordinator.scheduler import claims
from coordinator.scheduler.pool import Calculation
from coordinator.state import combined
from coordinator.state.tables.fleet import pools
from coordinator.state.together import hopeful, later, once

_AT_ONCE = 4
Space = tuple[str | None, str]
"""What is promised of once: a pool, or for all hosts of a cluster the part of it that they serve."""


@dataclass(slots=True)
class _Left:
    """Bytes that may still be promised, and that may be asked for at once, by the two rules of a claim, as read."""

    thin: bool
    promisable: float
    physical: float
    cluster: str | None

    def fits(self, more: int, promised: int, by: Calculation) -> bool:
        promises = (self.thin and by == "cinder") or self.promisable - promised >= more
        return promises and ((self.thin and by == "standard") or self.physical >= more)


@dataclass(slots=True)
class Held:
    """Of one transaction."""

    left: dict[str, dict[bool, _Left]] = field(default_factory=dict)
    promised: dict[Space, int] = field(default_factory=dict)
    """What is not in the rows yet."""
    passed: set[str] = field(default_factory=set)
    """What others had, or nobody may have, as it was looked at."""

    def take(self, conn: Connection, pool_id: str, more: int, *, thick: bool, by: Calculation) -> bool:
        """Promise it where it fits; waits for who else has the pool."""
        if not self._has(pool_id, thick):
            self._hold(conn, _waiting(), [pool_id], thick)
        return self._has(pool_id, thick) and self._take(conn, pool_id, more, thick, by)

    def take_any(
        self, conn: Connection, pool_ids: Sequence[str], more: int, *, thick: bool, by: Calculation
    ) -> str | None:
        """The first of them that has room; those that are not held yet are looked at if none is."""
        known = [pool_id for pool_id in pool_ids if self._has(pool_id, thick)]
        won = self._first(conn, known, more, thick, by)
        new = [pool_id for pool_id in pool_ids if not self._has(pool_id, thick) and pool_id not in self.passed]
        if won is None and new:
            won = self._first(conn, self._hold(conn, _free(), new, thick), more, thick, by)
        return won

    def _has(self, pool_id: str, thick: bool) -> bool:
        """Whether it is known how much this pool has left for such a volume."""
        return thick in self.left.get(pool_id, ())

    def _first(self, conn: Connection, pool_ids: Sequence[str], more: int, thick: bool, by: Calculation) -> str | None:
        return next((one for one in pool_ids if self._take(conn, one, more, thick, by)), None)

    def _take(self, conn: Connection, pool_id: str, more: int, thick: bool, by: Calculation) -> bool:
        left = self.left[pool_id][thick]
        space = (left.cluster, pool_id if left.cluster is None else pool_id.partition("#")[2])
        promised = self.promised.get(space, 0)
        if not left.fits(more, promised, by):
            return False
        self.promised[space] = promised + more
        later(conn, _promise, {"id": pool_id, "more": more, "cluster": left.cluster})
        return True

    def _hold(self, conn: Connection, holding: Select[Any], pool_ids: list[str], thick: bool) -> list[str]:
        rows = conn.execute(holding, {"any_of": pool_ids, "thick": thick}).all()
        if not rows:
            self.passed.update(pool_ids)
        for row in rows:
            left = _Left(row.judged_thin, row.promisable, row.physical, row.cluster_name)
            self.left.setdefault(row.id, {})[thick] = left
        return [row.id for row in rows]


def held(conn: Connection) -> Held | None:
    """None where each claim is a statement of its own."""
    return once(conn, ("pools held",), Held) if hopeful(conn) else None


def _asked() -> Select[Any]:
    from sqlalchemy.dialects.postgresql import ARRAY

    any_of = bindparam("any_of", type_=ARRAY(String))
    query = select(pools.c.id, pools.c.cluster_name, *claims.LEFT).where(pools.c.id == any_(any_of), *claims.OPEN)
    return query.order_by(func.array_position(any_of, pools.c.id)).limit(_AT_ONCE)


@cache
def _free() -> Select[Any]:
    return _asked().with_for_update(skip_locked=True, key_share=True, of=pools)


@cache
def _waiting() -> Select[Any]:
    return _asked().with_for_update(key_share=True, of=pools)


def _promise(conn: Connection, items: Iterable[dict[str, Any]]) -> None:
    sums: dict[str, int] = {}
    clusters: dict[str, str] = {}
    for item in items:
        sums[item["id"]] = sums.get(item["id"], 0) + int(item["more"])
        if item["cluster"] is not None:
            clusters[item["id"]] = item["cluster"]
    _adding()(conn, [{"id": pool_id, "provisioned_bytes": more} for pool_id, more in sums.items()])
    for pool_id, cluster in clusters.items():
        claims.claim_there(conn, cluster, pool_id, sums[pool_id])


@cache
def _adding() -> Callable[[Connection, list[dict[str, Any]]], object]:
    return combined.updating(pools, ("provisioned_bytes",), adding=True)
