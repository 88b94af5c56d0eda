"""Watching mirrored volumes that this host uses: a replica that answers again is taken back, one that does not is told.

The journal says which mirrors there are and the kernel what is wrong with them, so a restart forgets nothing. A replica
is replaced by a newer decision that names another one (`attachment.apply`); nothing is replaced from here.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.jobs import desired
from agent.jobs.handlers.common import one_volume
from agent.jobs.restoring import Hold

if TYPE_CHECKING:
    from agent.jobs.services import Services

log = get_logger(__name__)
PERIOD_S = 30.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with the mirror of one attachment, since when (Unix time)."""

    attachment_id: str
    volume_id: str
    reasons: tuple[str, ...]
    since: float


class Healing:
    """`start()` begins it beside the jobs; each mirror under its volume's lock."""

    def __init__(self, services: Services, hold: Hold) -> None:
        self._services, self._hold = services, hold
        self._task: asyncio.Task[None] | None = None
        self.troubles: dict[str, Trouble] = {}
        """By attachment."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def round(self) -> None:
        """Look at every mirror once."""
        rows = await self._services.journal.read(desired.all_rows)
        mirrors = [
            row for row in rows if row.identifiers.get("connection", {}).get("replicas") and row.wanted and row.device
        ]
        found = [await self._looked_at(row) for row in mirrors if row.boot_id == self._services.boot_id]
        self.troubles = {one.attachment_id: one for one in found if one is not None}

    async def _run(self) -> None:
        while True:
            try:
                await self.round()
            except Exception:
                # A full disk, say: it must not end the watching of mirrors until the next restart.
                log.exception("mirrors are not looked at for now")
            await asyncio.sleep(PERIOD_S)

    async def _looked_at(self, row: desired.Row) -> Trouble | None:
        from agent.connectors.nvme_raid import CONNECTOR

        connection = row.connection
        assert connection is not None
        known = self.troubles.get(row.attachment_id)
        try:
            async with self._hold(one_volume(row.volume_id)):
                reasons = await CONNECTOR.heal(connection)
        except BrickyardError as error:
            log.warning("a mirror could not be looked at", volume=row.volume_id, reason=str(error))
            return known
        if not reasons:
            return None
        return Trouble(row.attachment_id, row.volume_id, reasons, known.since if known is not None else time.time())
