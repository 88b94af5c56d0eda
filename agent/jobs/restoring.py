"""After a start: what the table wants exported is exported again, without the coordinator (ARCHITECTURE §4.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.jobs import exports
from agent.jobs.handlers.common import one_volume
from agent.jobs.kinds import Needs
from agent.jobs.offering import differences, offer

if TYPE_CHECKING:
    from agent.jobs.services import Services

log = get_logger(__name__)
_FIRST_RETRY_S, _SLOWEST_RETRY_S = 1.0, 60.0
Hold = Callable[[Needs], AbstractAsyncContextManager[Any]]


class Restoring:
    """`start()` begins it beside the jobs, each volume under its lock; what fails is tried again until `stop()`."""

    def __init__(self, services: Services, hold: Hold) -> None:
        self._services, self._hold = services, hold
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.failures: dict[str, str] = {}
        """By volume why its exports are not back yet."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def round(self) -> bool:
        """Restore what is missing, all volumes at once; whether nothing is missing any more."""
        rows = await self._services.journal.read(exports.all_rows)
        missing = await asyncio.to_thread(differences, self._services, rows)
        volumes = list(dict.fromkeys(row.volume_id for row in rows if row.attachment_id in missing))
        done = await asyncio.gather(*(self._volume(volume_id) for volume_id in volumes))
        return all(done)

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while not await self._done():
            try:
                async with asyncio.timeout(retry_s):
                    await self._stop.wait()
                return
            except TimeoutError:
                retry_s = min(_SLOWEST_RETRY_S, retry_s * 2)

    async def _done(self) -> bool:
        try:
            return await self.round()
        except Exception:
            # A full disk, say: it must not leave consumers without their volumes until the next restart.
            log.exception("exports are not restored for now")
            return False

    async def _volume(self, volume_id: str) -> bool:
        try:
            async with self._hold(one_volume(volume_id)):
                rows = await self._services.journal.read(lambda db: exports.of_volume(db, volume_id))
                await offer(self._services, volume_id, rows)
        except (BrickyardError, OSError) as error:
            self.failures[volume_id] = str(error)
            log.warning("exports of a volume could not be restored", volume=volume_id, reason=str(error))
            return False
        self.failures.pop(volume_id, None)
        log.info("exports of a volume are restored", volume=volume_id, consumers=len(rows))
        return True
