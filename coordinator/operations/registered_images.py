"""Images at a service outside, and the keys that were cloned for them: both go when the other has gone.

A call that registers an image writes it down first. Where it died before the upload was accepted, the image is
withdrawn; where an image was deleted at its service, so is its key here, which that service can not reach.
"""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from coordinator.images.glance import Glance
from coordinator.keys.store import KeyStore
from coordinator.state import registered
from coordinator.state.database import Database

log = get_logger(__name__)
INTERVAL_S = 30.0
GIVEN_UP = datetime.timedelta(minutes=10)
"""Longer than any call takes."""
_AT_ONCE = 50


class RegisteredImages:
    """`await run()` until cancelled. Two coordinators may do the same at once: one of them makes it count."""

    def __init__(
        self, db: Database, glance: Glance, keys: KeyStore, interval_s: float = INTERVAL_S,
        given_up: datetime.timedelta = GIVEN_UP,
    ) -> None:  # fmt: skip
        self._db, self._glance, self._keys = db, glance, keys
        self._interval_s, self._given_up = interval_s, given_up

    async def run(self) -> None:
        while True:
            try:
                await self.work()
            except BrickyardError as error:
                log.info("images that were registered are looked at later", reason=str(error))
            except Exception:
                log.exception("images that were registered are looked at later")
            await asyncio.sleep(self._interval_s)

    async def work(self) -> int:
        """Look at some; how many have gone. Raises GlanceAway."""
        gone = 0
        for row in await self._db.read(lambda conn: registered.due(conn, self._given_up, _AT_ONCE)):
            # Before it is asked for: one that the service fails at does not keep the others next time.
            await self._db.write(lambda conn, row=row: registered.looked(conn, row.image_id))  # type: ignore[misc]
            if await self._is_gone(row):
                gone += await self._db.write(lambda conn, row=row: self._forget(conn, row))  # type: ignore[misc]
        return gone

    async def _is_gone(self, row: Row[Any]) -> bool:
        if registered.is_given_up(row):
            return await self._glance.withdraw(row.image_id)
        return row.key_id is None or await self._glance.is_gone(row.image_id)

    def _forget(self, conn: Connection, row: Row[Any]) -> int:
        if not registered.drop(conn, row.image_id):
            return 0
        if row.key_id is not None:
            self._keys.delete(conn, row.key_id)
        log.info("an image of the image service is gone", image=row.image_id, key=row.key_id)
        return 1
