"""Cinder's notifications of capacity: what is left in pools that have changed, and in their back ends.

They tell how things are, not what happened: they are no events; one that could not be sent is made good by the next.
Each host is told of by the coordinator that watches it.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from agent.base.log import get_logger
from coordinator.scheduler.pool import GIB, Pool, of_row
from coordinator.state import fleet
from coordinator.state.database import Database
from coordinator.state.tables.columns import utcnow

log = get_logger(__name__)


class Speaker(Protocol):
    """The message bus (`coordinator.notifications.messaging`)."""

    async def say(self, event_type: str, publisher: str, payload: dict[str, Any]) -> None:
        """Raises NotSent."""
        ...


class Capacity:
    """`await run()` until cancelled. `mine(host)` says whether it is this coordinator that watches a host."""

    def __init__(self, db: Database, bus: Speaker, mine: Callable[[str], bool], every_s: float) -> None:
        self._db, self._bus, self._mine, self._every_s = db, bus, mine, every_s
        self._told: dict[str, tuple[float, ...]] = {}

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("capacity is not notified for now")
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """One look at all pools; those with other figures than last time are told, and the sums of their back ends."""
        found = [of_row(row) for row in await self._db.read(fleet.pools_of) if row.present and self._mine(row.host_id)]
        changed = [pool for pool in found if self._told.get(pool.id) != _figures(pool)]
        now = utcnow()
        for pool in changed:
            await self._say("capacity.pool", pool.id, [pool], now)
        for backend in sorted({(pool.host_id, pool.backend) for pool in changed}):
            of_it = [pool for pool in found if (pool.host_id, pool.backend) == backend]
            await self._say("capacity.backend", "@".join(backend), of_it, now)
        self._told = {pool.id: _figures(pool) for pool in found}

    async def _say(self, event_type: str, name: str, pools: Sequence[Pool], now: datetime.datetime) -> None:
        columns = zip(*map(_figures, pools), strict=True)
        total, free, allocated, provisioned, virtual = (_sum(column) for column in columns)
        payload = {
            "name_to_id": name, "total": total, "free": free, "allocated": allocated, "provisioned": provisioned,
            "virtual_free": virtual, "reported_at": now.isoformat(sep=" "),
        }  # fmt: skip
        await self._bus.say(event_type, "capacity.brickyard", payload)


def _figures(pool: Pool) -> tuple[float, ...]:
    """GiB: total, free, allocated, provisioned, and what may still be promised."""
    virtual = pool.limit(False) - pool.provisioned if pool.thin else pool.free
    return tuple(round(size / GIB, 2) for size in (pool.total, pool.free, pool.ours, pool.provisioned, virtual))


def _sum(column: Iterable[float]) -> float:
    return round(sum(column), 2)
