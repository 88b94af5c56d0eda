"""Keeps the image cache true: what left it is deleted by the ordinary way, what its service has no more leaves it."""

from __future__ import annotations

import time

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from coordinator.images.client import ImageClient
from coordinator.operations.accept import Requester
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.engine import Engine
from coordinator.operations.image_cache import Owner, delete_leaving, image_left
from coordinator.state import image_cache
from coordinator.state.operations import Operation

log = get_logger(__name__)
INTERVAL_S, LOOK_S = 30.0, 300.0
_AT_ONCE, _MOST_DOUBTED = 50, 1000
_REQUEST = "req-image-cache"


class CacheKeeper:
    """`await run()` until cancelled. Two coordinators may do the same at once: one of them makes it count."""

    def __init__(
        self, engine: Engine, owner: Owner, client: ImageClient, interval_s: float = INTERVAL_S, look_s: float = LOOK_S
    ) -> None:
        self._engine, self._owner, self._client = engine, owner, client
        self._interval_s, self._look_s = interval_s, look_s
        self._doubted: set[str] = set()
        self._next_look = 0.0

    def doubt(self, image_id: str) -> None:
        """A caller could not use it: whether it is there at all is asked soon, where it is kept."""
        if len(self._doubted) < _MOST_DOUBTED:
            self._doubted.add(image_id)
            self._engine.db.new_in_cache.ring()

    async def run(self) -> None:
        bell = self._engine.db.new_in_cache
        while True:
            rung = bell.count
            try:
                await self.look()
                await self.work()
            except Exception:
                log.exception("the image cache is tidied later")
            await bell.after(rung, self._interval_s)

    async def look(self) -> None:
        """Ask for what is in doubt, and now and then for all that is kept."""
        all_of_them, doubted = time.monotonic() >= self._next_look, self._doubted
        if not all_of_them and not doubted:
            return
        self._doubted = set()
        for image_id in await self._engine.db.read(image_cache.images):
            if all_of_them or image_id in doubted:
                await self._compare(image_id)
        if all_of_them:
            self._next_look = time.monotonic() + self._look_s

    async def _compare(self, image_id: str) -> None:
        """A service that does not answer has not said that the image is gone."""
        try:
            version = await self._client.version(image_id)
        except BrickyardError as error:
            log.info("a cached image can not be asked for", image=image_id, reason=str(error))
            return
        await self._engine.db.write(lambda conn: image_left(conn, _REQUEST, image_id, version), patient=True)

    async def work(self) -> int:
        """Delete what has left; how many are still to go."""
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
        return accept_delete(conn, Requester(owner.project_id, owner.user_id, _REQUEST, self._engine.owner), volume_id)
