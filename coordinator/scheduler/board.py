"""All pools in memory, so that placing among ten thousand reads hardly any of them from the database.

The board may be a second old, and other coordinators change the pools meanwhile: it only proposes. What is taken is
decided by the conditional update of a claim; when that says no, or nothing fits, the board is read anew. Of pools that
did not report since, only the promised space is read; the queues of what was asked for before are kept up, not rebuilt.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from coordinator.scheduler.pool import Calculation, Pool, of_row
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.tables.volumes import volumes

_FRESH_S = 1.0
_SHARE = 20  # reading takes at most this part of the time
_MOST_QUEUES, _MOST_ENTRIES = 256, 400_000
_CHUNK = 500
_NEARLY = 0.9
_BEHIND = 2
_FROM = pools.join(hosts, hosts.c.id == pools.c.host_id)
_OF_HOST: tuple[ColumnElement[Any], ...] = (
    hosts.c.reachable, hosts.c.enabled, hosts.c.availability_zone, hosts.c.disabled_reason,
)  # fmt: skip
_STATE: tuple[ColumnElement[Any], ...] = (pools.c.updated_at, pools.c.present, pools.c.disabled, *_OF_HOST)
_LIGHT = select(pools.c.id, pools.c.provisioned_bytes, *_STATE).select_from(_FROM)
_WHOLE = select(pools, *_OF_HOST).select_from(_FROM)
_COUNTS = (
    select(volumes.c.pool_id, func.count())
    .where(volumes.c.deleted_at.is_(None), volumes.c.pool_id.is_not(None))
    .group_by(volumes.c.pool_id)
)


def read_pool(conn: Connection, pool_id: str, calculation: Calculation = "both") -> Pool | None:
    """One pool as the database has it now."""
    row = conn.execute(_WHOLE.where(pools.c.id == pool_id)).one_or_none()
    return None if row is None else of_row(row, calculation)


@dataclass(slots=True)
class _Queue:
    """The pools that one kind of request may have, most to spare first. Stale entries are judged when read."""

    allowed: Callable[[Pool], bool]
    thick: bool
    members: dict[str, Pool] = field(default_factory=dict)
    heap: list[tuple[int, str]] = field(default_factory=list)

    def fill(self, every: Iterable[Pool]) -> None:
        self.members = {pool.id: pool for pool in every if self.allowed(pool)}
        self.heap = [(-pool.spare(self.thick), pool.id) for pool in self.members.values()]
        heapq.heapify(self.heap)

    def judge(self, pool: Pool) -> None:
        if not self.allowed(pool):
            self.members.pop(pool.id, None)
            return
        self.members[pool.id] = pool
        heapq.heappush(self.heap, (-pool.spare(self.thick), pool.id))
        if len(self.heap) > 2 * len(self.members) + _CHUNK:
            self.fill(list(self.members.values()))

    def best(self, count: int, prefer: Iterable[str] = ()) -> list[Pool]:
        """The first one, and up to `count` in all that have nearly as much to spare; of these `prefer` first."""
        found = self._liked(prefer)
        if found:
            return [*found, *(pool for pool in self.best(_BEHIND) if pool not in found)]

        taken: list[tuple[int, str]] = []
        while len(found) < count and (pool := self._top()) is not None:
            if found and -self.heap[0][0] < -taken[0][0] * _NEARLY:
                break
            found.append(pool)
            # What is behind it may be an entry of the same pool.
            while self.heap and self.heap[0][1] == pool.id:
                taken.append(heapq.heappop(self.heap))
        for entry in taken:
            heapq.heappush(self.heap, entry)
        return found

    def _liked(self, prefer: Iterable[str]) -> list[Pool]:
        top = self._top() if prefer else None
        if top is None:
            return []
        least = top.spare(self.thick) * _NEARLY
        known = (self.members[pool_id] for pool_id in prefer if pool_id in self.members)
        liked = [(spare, pool.id, pool) for pool in known if (spare := pool.spare(self.thick)) >= least]
        return [pool for _, _, pool in sorted(liked, reverse=True)]

    def _top(self) -> Pool | None:
        while self.heap:
            told, pool_id = self.heap[0]
            pool = self.members.get(pool_id)
            if pool is None:
                heapq.heappop(self.heap)
                continue
            actual = -pool.spare(self.thick)
            if actual == told:
                return pool
            heapq.heapreplace(self.heap, (actual, pool_id))
        return None


class Board:
    """Not safe for several threads at once: the scheduler holds its lock around it."""

    def __init__(
        self, *, counts_volumes: bool = False, calculation: Calculation = "both",
        clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self._counts_volumes, self._calculation = counts_volumes, calculation
        self._clock = clock
        self._next_read = float("-inf")
        self._pools: dict[str, Pool] = {}
        self._stamps: dict[str, int] = {}
        self._queues: dict[object, _Queue] = {}
        self._together: dict[tuple[str, str], set[str]] = {}
        self._turn, self._turns = 0, dict[str, int]()
        self.has_functions = False
        """Whether any back end brings an expression of its own, which looks at each volume."""

    @property
    def pools(self) -> Iterable[Pool]:
        return self._pools.values()

    def only(self, pool_id: str) -> list[Pool]:
        """That one, if it is known."""
        return [self._pools[pool_id]] if pool_id in self._pools else []

    def refresh(self, conn: Connection, *, now: bool = False) -> None:
        """Read what changed, unless what is known is about a second old (and `now` is not set)."""
        begun = self._clock()
        if not now and begun < self._next_read:
            return
        changed = self._read_light(conn.execute(_LIGHT).all())
        for start in range(0, len(changed), _CHUNK):
            for row in conn.execute(_WHOLE.where(pools.c.id.in_(changed[start : start + _CHUNK]))):
                self._pools[row.id] = of_row(row, self._calculation)
                if row.cluster_name is not None:
                    self._together.setdefault((row.cluster_name, row.name), set()).add(row.id)
        if self._counts_volumes:
            counts = {row[0]: row[1] for row in conn.execute(_COUNTS)}
            for pool in self.pools:
                pool.volumes = counts.get(pool.id, 0)
        self.has_functions = any(told.has_functions for told in {pool.told for pool in self.pools})
        self._judge(changed)
        ended = self._clock()
        self._next_read = ended + max(_FRESH_S, (ended - begun) * _SHARE)

    def took(self, pool: Pool, size: int) -> None:
        pool.provisioned += size
        pool.volumes += 1
        if pool.cluster is not None:
            self._turn += 1
            self._turns[pool.id] = self._turn

    def gave(self, pool: Pool, size: int) -> None:
        """What `took` noted did not come about: the pool has more to spare now than the queues know."""
        if self._pools.get(pool.id) is not pool:
            return  # It was read anew meanwhile.
        pool.provisioned -= size
        pool.volumes -= 1
        for queue in self._queues.values():
            queue.judge(pool)

    def roomiest(
        self, allowed: Callable[[Pool], bool], *, thick: bool, key: object, count: int = 1, prefer: Iterable[str] = ()
    ) -> list[Pool]:  # fmt: skip
        """The allowed pool with most to spare, in the time of a heap; `key` names the set of allowed pools.

        Behind it up to `count` in all that are nearly as good; those that the caller would `prefer` come first.
        """
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= _MOST_QUEUES or len(self._queues) * len(self._pools) > _MOST_ENTRIES:
                self._queues.clear()
            queue = self._queues[key] = _Queue(allowed, thick)
            queue.fill(self.pools)
        return self._in_turn(queue, queue.best(count, prefer))

    def _in_turn(self, queue: _Queue, best: list[Pool]) -> list[Pool]:
        """Hosts of a cluster have one space: who read its size last has not more of it, they take turns."""
        cluster = best[0].cluster if best else None
        if cluster is None:
            return best
        known = (queue.members.get(pool_id) for pool_id in self._together[cluster, best[0].name])
        alike = [pool for pool in known if pool is not None and pool.cluster == cluster]
        turn = min(alike, key=lambda pool: (self._turns.get(pool.id, 0), pool.id), default=best[0])
        return [turn, *(pool for pool in best if pool is not turn)][: len(best)]

    def is_fresh(self) -> bool:
        """Whether nothing is to be read before the next proposal."""
        return self._clock() < self._next_read

    def _read_light(self, rows: Sequence[Row[Any]]) -> list[str]:
        """Take over what was promised; the pools of which more must be read."""
        changed, seen = [], set()
        for row in rows:
            pool_id, stamp = row.id, hash(tuple(row)[2:])  # Ten thousand hosts have many pools: kept small.
            seen.add(pool_id)
            if self._stamps.get(pool_id) != stamp:
                self._stamps[pool_id] = stamp
                changed.append(pool_id)
                continue
            pool = self._pools[pool_id]
            if pool.provisioned > row.provisioned_bytes:
                changed.append(pool_id)
            pool.provisioned = row.provisioned_bytes
        for gone in self._pools.keys() - seen:
            del self._pools[gone]
            self._stamps.pop(gone, None)
            for queue in self._queues.values():
                queue.members.pop(gone, None)
        return changed

    def _judge(self, changed: Sequence[str]) -> None:
        if len(changed) * 4 > len(self._pools):
            self._queues.clear()
        for queue in self._queues.values():
            for pool_id in changed:
                if pool_id in self._pools:
                    queue.judge(self._pools[pool_id])
