"""How many operations are worked on at once. One that waits, for a host or a long job, gives its place to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slot:
    """One operation's place. `async with slot:` takes it; `async with slot.given_up():` lends it meanwhile."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._held = False

    async def __aenter__(self) -> Slot:
        await self._take()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    @asynccontextmanager
    async def given_up(self) -> AsyncIterator[None]:
        """Let others work while this one waits; takes a place again at the end, in turn."""
        self._leave()
        try:
            yield
        finally:
            await self._take()

    async def _take(self) -> None:
        await self._places.acquire()
        self._held = True

    def _leave(self) -> None:
        if self._held:
            self._held = False
            self._places.release()
