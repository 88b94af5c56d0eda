"""Extends that a server carries out: what is asked for stands in the volume's admin metadata, and so does the answer.

The answer may come to any coordinator; who waits hears of it by news, and looks at the rows now and then as well.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import Invalid
from coordinator.compute.errors import CompletionMissing, ExtendFailedThere
from coordinator.operations.workflow import Result
from coordinator.state import metadata, news
from coordinator.state.database import Database
from coordinator.state.operations import Operation

NEW_SIZE_KEY, _ANSWER_KEY = "extend_new_size", "extend_completion"
_LOOK_S = 5.0


class NotWaiting(Invalid):
    code = "volume.no-extend-waits"
    sentence = "Invalid volume: volume {volume} has status {status} and does not wait for the completion of an extend."


def begin(conn: Connection, volume_id: str, new_size: int) -> None:
    """Nova reads the size that it has to bring the volume to from the metadata."""
    metadata.merge(conn, "volume-admin", volume_id, {NEW_SIZE_KEY: str(new_size)})


def end(conn: Connection, volume_id: str) -> None:
    """Nobody waits any more."""
    for key in (NEW_SIZE_KEY, _ANSWER_KEY):
        metadata.remove(conn, "volume-admin", volume_id, key)


def waits(conn: Connection, volume: Row[Any]) -> bool:
    """Whether an extend of this volume waits for a server."""
    known = metadata.read(conn, "volume-admin", volume.id).get(NEW_SIZE_KEY, "")
    return bool(volume.status == "extending" and known.isdigit() and int(known) > volume.size)


def answer(conn: Connection, volume: Row[Any], *, failed: bool) -> None:
    """The word of the compute service; raises NotWaiting (400)."""
    if not waits(conn, volume):
        raise NotWaiting(volume=volume.id, status=volume.status)
    metadata.merge(conn, "volume-admin", volume.id, {_ANSWER_KEY: "failed" if failed else "done"})


class Completions:
    """Who waits here. `told(volume)` after the transaction of `answer`; then the other coordinators know too."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: dict[str, asyncio.Event] = {}

    def follow(self) -> None:
        """Listen to the other coordinators; call on the event loop that will wait."""
        loop = asyncio.get_running_loop()
        self._db.news.follow(news.COMPLETED, lambda key: loop.call_soon_threadsafe(self._wake, key))

    def told(self, volume_id: str) -> None:
        self._wake(volume_id)
        self._db.news.tell(news.COMPLETED, volume_id)

    def _wake(self, volume_id: str) -> None:
        if volume_id in self._waiting:
            self._waiting[volume_id].set()

    async def wait(self, operation: Operation, server: str, seconds: float) -> Result:
        """Until the server is done; raises ExtendFailedThere, CompletionMissing."""
        volume_id, deadline = operation.resource_id, time.monotonic() + seconds
        heard = self._waiting.setdefault(volume_id, asyncio.Event())
        try:
            while True:
                heard.clear()
                said = await self._db.read(lambda conn: metadata.read(conn, "volume-admin", volume_id))
                if said.get(_ANSWER_KEY) == "done":
                    return {"server": server}
                if said.get(_ANSWER_KEY) == "failed":
                    raise ExtendFailedThere(volume=volume_id)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CompletionMissing(volume=volume_id, server=server, seconds=int(seconds))
                try:
                    await asyncio.wait_for(heard.wait(), min(left, _LOOK_S))
                except TimeoutError:
                    continue
        finally:
            self._waiting.pop(volume_id, None)
