"""Hosts that were evicted and are enrolled again: what the site ended meanwhile is taken from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.wire.client import AgentClient
from agent.wire.jobs import TERMINAL
from coordinator.operations import returned_host
from coordinator.operations.engine import Engine
from coordinator.operations.returned_host import Told
from coordinator.state import evictions, site
from coordinator.state.database import Database
from coordinator.state.operations import Operation

log = get_logger(__name__)
_LOOK_S, _SOON_S = 30.0, 2.0


class News(Protocol):
    """Who tells that hosts came or went."""

    async def changed(self) -> None: ...


class Homecoming:
    """`await run()` until cancelled. `mine` says which hosts this coordinator looks after."""

    def __init__(self, db: Database, engine: Engine, news: News, mine: Callable[[str], bool]) -> None:
        self._db, self._engine, self._news, self._mine = db, engine, news, mine
        self._stopping: set[str] = set()

    async def run(self) -> None:
        while True:
            busy = False
            try:
                busy = await self.look()
            except Exception:
                log.exception("hosts that came back can not be looked at just now")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.changed(), _SOON_S if busy else _LOOK_S)
            await asyncio.sleep(_SOON_S / 2)  # Many hosts may come at once.

    async def look(self) -> bool:
        """Look at each host that is back once; True while something is being taken, or one did not answer."""
        back, adopting = await self._db.read(lambda conn: (evictions.to_clear(conn), site.adopting(conn)))
        busy = False
        for eviction in back:
            client = self._engine.agents.client(eviction.host_id) if self._mine(eviction.host_id) else None
            if client is None or adopting is not None:
                continue
            try:
                busy |= await self._clear(eviction, client)
            except (BrickyardError, TimeoutError) as error:
                busy = True
                log.info("a host that came back is not cleared yet", host=eviction.host_id, reason=str(error))
        await self._db.write(returned_host.follow)
        return busy

    async def _clear(self, eviction: Row[Any], client: AgentClient) -> bool:
        stopped, going = await self._stop_jobs(client)
        inventory, away = await client.inventory()
        told = Told(inventory, await client.attachments(), await client.exports())

        def act(conn: Connection) -> tuple[list[Operation], bool]:
            return returned_host.accept_clearing(
                conn, self._engine.owner, eviction, told, stopped=stopped, going=going or bool(away)
            )

        begun, busy = await self._db.write(act)
        for operation in begun:
            self._engine.start(operation)
        return busy or going

    async def _stop_jobs(self, client: AgentClient) -> tuple[int, bool]:
        """End what the host still does for operations that have ended; (how many more, whether some go on)."""
        running = [job for job in await client.jobs() if not job.terminal]
        of = {job.key: job.key.split("/", 1)[0] for job in running}
        ended = await self._db.read(lambda conn: returned_host.ended_operations(conn, of.values()))
        going, stopped = False, set()
        for job in running:
            if of[job.key] in ended:
                state = (await client.cancel(job.key, max(job.epoch, ended[of[job.key]]))).state
                going |= state not in TERMINAL
                stopped |= {job.key} if state == "cancelled" or state not in TERMINAL else set()
        fresh, self._stopping = stopped - self._stopping, stopped
        return len(fresh), going
