"""Deletes the volumes that have left the image cache, by the ordinary way: a row says so until they are gone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from coordinator.operations.accept import Requester
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.engine import Engine
from coordinator.operations.image_cache import Owner, delete_leaving
from coordinator.state import image_cache
from coordinator.state.operations import Operation

log = get_logger(__name__)
INTERVAL_S = 30.0
_SOON_S = 1.0
_AT_ONCE = 50


class CacheKeeper:
    """`await run()` until cancelled. Two coordinators may do the same at once: one of them makes it count."""

    def __init__(self, engine: Engine, owner: Owner, interval_s: float = INTERVAL_S) -> None:
        self._engine, self._owner, self._interval_s = engine, owner, interval_s
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stir(self) -> None:
        """Something is leaving, once the caller's transaction has ended; from any thread."""
        if self._loop is not None:
            loop = self._loop
            loop.call_soon_threadsafe(loop.call_later, _SOON_S, self._news.set)

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                await self.work()
            except Exception:
                log.exception("the image cache is tidied later")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._interval_s)
            self._news.clear()

    async def work(self) -> int:
        """One round; how many are still to go."""
        going = await self._engine.db.read(lambda conn: image_cache.leaving(conn, _AT_ONCE))
        for volume_id in going:
            try:
                await self._engine.submit_perhaps(lambda conn, volume_id=volume_id: self._removal(conn, volume_id))  # type: ignore[misc]
            except BrickyardError as error:
                log.info("a cached volume can not be deleted now", volume=volume_id, reason=str(error))
        return len(going)

    def _removal(self, conn: Connection, volume_id: str) -> Operation | None:
        if not delete_leaving(conn, volume_id):
            return None
        owner = self._owner
        who = Requester(owner.project_id, owner.user_id, "req-image-cache", self._engine.owner)
        return accept_delete(conn, who, volume_id)
