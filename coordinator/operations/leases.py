"""Keeping what this coordinator has, taking what others left, hearing of what they do: by rows, hurried by news."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Protocol

from agent.base.log import get_logger
from coordinator.state import news, operations
from coordinator.state.database import Database
from coordinator.state.operations import Operation

log = get_logger(__name__)
RENEW_S = 3.0
SCAN_S = 5.0
_AT_ONCE = 500


class Holder(Protocol):
    """The engine, as seen from here."""

    owner: str

    def held(self) -> Collection[str]:
        """The operations that are worked on here."""

    def start(self, operation: Operation) -> None:
        """Work on a claimed one."""

    def stop(self, operation_id: str) -> None:
        """Its requester wants it to end."""

    async def look(self, operation_id: str) -> None:
        """It may have ended elsewhere: tell who waits here."""


class Leases:
    """`alone`: the database is this process's alone, so that what a former life left is taken at once."""

    def __init__(self, db: Database, holder: Holder, known: frozenset[tuple[str, int]], *, alone: bool) -> None:
        self._db, self._holder, self._known, self._alone = db, holder, known, alone
        self.busy = asyncio.Event()
        self._free = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._looking: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        await self._claim()
        self._tasks = [asyncio.create_task(self._repeat(self._keep, "leases can not be renewed just now"))]
        if self._alone:
            return
        self._tasks.append(asyncio.create_task(self._repeat(self._scan, "operations can not be claimed just now")))
        loop = asyncio.get_running_loop()
        follow = self._db.news.follow
        follow(news.FREED, lambda _: loop.call_soon_threadsafe(self._free.set))
        follow(news.CANCELLED, lambda key: loop.call_soon_threadsafe(self._holder.stop, key))
        follow(news.ENDED, lambda key: loop.call_soon_threadsafe(self._ended, key))
        self._db.news.start()

    async def close(self) -> None:
        """What is still held here is anybody's from now on."""
        for task in (*self._tasks, *self._looking):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._looking, return_exceptions=True)
        if self._alone:
            return
        try:
            if await self._db.write(lambda conn: operations.let_go(conn, self._holder.owner)):
                self._db.news.tell(news.FREED)
        except Exception as error:  # noqa: BLE001 - the leases run out by themselves
            log.info("leases could not be let go", reason=str(error))

    def _ended(self, operation_id: str) -> None:
        task = asyncio.ensure_future(self._holder.look(operation_id))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _repeat(self, work: Callable[[], Awaitable[None]], failure: str) -> None:
        while True:
            try:
                await work()
            except Exception:
                log.exception(failure)

    async def _keep(self) -> None:
        await self.busy.wait()
        await asyncio.sleep(RENEW_S)
        held = list(self._holder.held())
        if not held:
            return
        if self._alone:
            await self._db.write(lambda conn: operations.renew(conn, self._holder.owner))
            return
        # Only what is really worked on: an operation whose acceptance was in doubt belongs to nobody here.
        for start in range(0, len(held), _AT_ONCE):
            some = held[start : start + _AT_ONCE]
            cancelled = await self._db.write(lambda conn, some=some: operations.renew(conn, self._holder.owner, some))  # type: ignore[misc]
            for operation_id in cancelled:
                self._holder.stop(operation_id)

    async def _scan(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._free.wait(), SCAN_S)
        self._free.clear()
        await self._claim()

    async def _claim(self) -> None:
        owner, known = self._holder.owner, self._known
        claimed = await self._db.write(
            lambda conn: operations.claim(conn, owner, all_of_them=self._alone, known=known)
        )  # fmt: skip
        for operation in claimed:
            log.info("operation resumed", operation=operation.id, kind=operation.kind, epoch=operation.epoch)
            self._holder.start(operation)
