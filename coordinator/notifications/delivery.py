"""Carries events to a receiver, in their order, at least once each; a receiver that is away holds up nothing else.

How far a receiver has come is a row. Of several coordinators the one that rendezvous hashing names delivers; should two
do so for a moment, an event is sent twice, and the row moves on once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.log import get_logger
from coordinator.notifications.errors import NotSent
from coordinator.notifications.event import Event, Sink
from coordinator.state import events
from coordinator.state.database import Database
from coordinator.state.tables.columns import utcnow

log = get_logger(__name__)
_AT_ONCE = 100
_LONGEST_PAUSE_S = 300.0


class Delivery:
    """`await run()` until cancelled. `mine(name)` says whether this coordinator delivers to a receiver."""

    def __init__(
        self, db: Database, sink: Sink, mine: Callable[[str], bool], *, look_s: float, give_up_s: float,
        pause_s: float = 1.0,
    ) -> None:  # fmt: skip
        self._db, self._sink, self._mine = db, sink, mine
        self._look_s, self._give_up_s, self._pause_s = look_s, give_up_s, pause_s

    async def run(self) -> None:
        try:
            while True:
                rung = self._db.new_events.count
                pause_s = await self._told()
                if pause_s is None:
                    await self._db.new_events.after(rung, self._look_s)
                else:
                    await asyncio.sleep(pause_s)
        finally:
            await self._sink.close()

    async def _told(self) -> float | None:
        """Deliver what there is; returns what `round` does."""
        try:
            return await self.round() if self._mine(f"events:{self._sink.name}") else None
        except Exception:
            log.exception("events are not delivered for now", receiver=self._sink.name)
            return self._pause_s

    async def round(self) -> float | None:
        """One batch; returns how long to wait before the next: nothing while there is more, None: until news come."""
        name = self._sink.name
        await events.numbered(self._db)
        at = (await self._db.write(lambda conn: events.consumer(conn, name))).position
        found = await self._db.read(lambda conn: events.after(conn, at, None, _AT_ONCE))
        if not found:
            return None
        done, failure = await self._send([Event.of(row) for row in found], at)
        if done > at and not await self._db.write(lambda conn: events.delivered(conn, name, at, done)):
            return None
        if failure is None:
            return 0.0
        return await self._put_off(done, next(row.position for row in found if row.position > done), failure)

    async def _send(self, batch: Sequence[Event], at: int) -> tuple[int, NotSent | None]:
        """Up to which position all were taken, and why the next was not."""
        done = at
        for event in batch:
            if self._sink.wants(event):
                try:
                    await self._sink.send(event)
                except NotSent as error:
                    return done, error
                except Exception as error:
                    # Whatever it is, what was sent before is not sent again, and the event is given up in time.
                    log.exception("an event can not be sent", receiver=self._sink.name, position=event.position)
                    return done, NotSent(receiver=self._sink.name, reason=type(error).__name__)
            done = event.position
        return done, None

    async def _put_off(self, at: int, position: int, failure: NotSent) -> float:
        name, reason = self._sink.name, str(failure)
        log.info("an event was not taken", receiver=name, position=position, reason=reason)

        def note(conn: Connection) -> Row[Any] | None:
            return events.failed(conn, name, at, reason)

        row = await self._db.write(note)
        if row is None:
            return self._look_s
        since = row.failing_since
        if since is not None and (utcnow() - since).total_seconds() > self._give_up_s:
            log.warning("an event is given up", receiver=name, position=position, reason=reason)
            await self._db.write(lambda conn: events.given_up(conn, name, at, position, reason))
            return 0.0
        return float(min(_LONGEST_PAUSE_S, self._pause_s * 2 ** min(row.attempts - 1, 20)))
