"""What a coordinator does now and then beside its work: old rows dropped in small bites, waits shown with their age."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Awaitable, Callable

from agent.base.log import get_logger
from coordinator.operations import evict_host, waits
from coordinator.server.settings import HousekeepingSection
from coordinator.state import clusters, messages, purge
from coordinator.state.database import Database
from coordinator.state.purge import Kept

log = get_logger(__name__)
LOOK_S = 30.0
_BREATHER_S = 0.1


def kept(section: HousekeepingSection, receivers: frozenset[str] = frozenset()) -> Kept:
    """How long rows are kept, from the configuration; events longer for these receivers, while they were not told."""
    return Kept(
        operations=datetime.timedelta(days=section.operations_days),
        events=datetime.timedelta(days=section.events_days),
        issues=datetime.timedelta(days=section.issues_days),
        deleted=datetime.timedelta(days=section.deleted_days),
        archived=datetime.timedelta(days=section.archived_days),
        receivers=receivers,
    )


class Housekeeper:
    """`await run()` until cancelled; neither a failing database nor a defect ends it."""

    def __init__(
        self, db: Database, section: HousekeepingSection, look_s: float = LOOK_S,
        refresh: Callable[[], Awaitable[None]] | None = None, receivers: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._db, self._kept, self._refresh = db, kept(section, receivers), refresh
        self._interval_s, self._look_s = section.interval_s, look_s
        messages.keep_for(section.messages_ttl_s)

    def follow(self, section: HousekeepingSection) -> None:
        """The configuration has changed."""
        self._kept, self._interval_s = kept(section, self._kept.receivers), section.interval_s
        messages.keep_for(section.messages_ttl_s)

    async def run(self) -> None:
        purged = time.monotonic()
        while True:
            await asyncio.sleep(min(self._look_s, self._interval_s))
            try:
                if self._refresh is not None:
                    await self._refresh()
                await self._db.write(waits.follow)
                await self._db.write(clusters.spread_idle)
                await self._db.write(evict_host.follow)
                if time.monotonic() - purged >= self._interval_s:
                    purged = time.monotonic()
                    await self.purge()
            except Exception:
                log.exception("housekeeping is put off")

    async def purge(self) -> dict[str, int]:
        """Drop all that is past its time; between bites others get to write. Returns how many rows of what."""
        dropped: dict[str, int] = {}
        while found := await self._db.read(lambda conn: purge.due(conn, self._kept)):
            counts = await self._db.write(lambda conn, found=found: purge.drop(conn, self._kept, found))  # type: ignore[misc]
            if not any(counts.values()):
                break
            for name, count in counts.items():
                dropped[name] = dropped.get(name, 0) + count
            await asyncio.sleep(_BREATHER_S)
        if dropped:
            log.info("old rows dropped", **{name.replace(" ", "_"): count for name, count in dropped.items()})
        return dropped
