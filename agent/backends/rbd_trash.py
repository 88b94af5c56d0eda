"""What is deleted: in the pool's trash at once, removed from there when nothing shares its data any more.

The trash itself is the only list, so a kill forgets nothing; it is gone through after each deletion, and now and then.
"""

from __future__ import annotations

import asyncio
import time

from agent.backends import rbd_names as names
from agent.backends.rbd_cluster import BUSY, LONG_S, NOT_EMPTY, NOT_THERE, REFUSED, RbdCluster
from agent.base.errors import BrickyardError
from agent.base.log import get_logger

log = get_logger(__name__)
_EVERY_S = 300.0
_STAYS = (NOT_EMPTY, BUSY, NOT_THERE, REFUSED)


class Trash:
    """Lives on one event loop."""

    def __init__(self, cluster: RbdCluster) -> None:
        self._cluster = cluster
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._last = float("-inf")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def take(self, image: str) -> None:
        """Move the image there; its name is free afterwards. Nothing of that name: it was done before."""
        keep = self._cluster.config.trash_keep_s
        until = ("--expires-at", f"now + {keep} seconds") if keep else ()
        await self._cluster.rbd("trash", "mv", self._cluster.spec(image), *until, ok=(NOT_THERE,))
        self._last = float("-inf")
        self.tend()

    def tend(self) -> None:
        """Begin to go through it when that is due; returns at once."""
        if self._task is not None and not self._task.done():
            self._again = self._again or self._last == float("-inf")
        elif time.monotonic() - self._last > _EVERY_S:
            self._task = asyncio.create_task(self._go_through())

    async def emptied(self) -> None:
        """Wait until what can go has gone."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    async def _go_through(self) -> None:
        while True:
            self._again, self._last = False, time.monotonic()
            try:
                while await self._once():
                    pass  # what is gone may have kept another one
            except BrickyardError as error:
                log.warning("the trash could not be emptied", backend=self._cluster.backend, reason=str(error))
            if not self._again:
                return

    async def _once(self) -> bool:
        """Try each of ours once; whether any is gone."""
        pool = self._cluster.pool
        gone = False
        for one in await self._cluster.asked("trash", "ls", pool):
            if names.parsed(one["name"]) is not None:
                gone = await self._removed(pool, one["id"]) or gone
        return gone

    async def _removed(self, pool: str, ident: str) -> bool:
        spec = f"{pool}/{ident}"
        done = await self._cluster.rbd("trash", "rm", "--no-progress", spec, ok=_STAYS, timeout=LONG_S)
        if done.returncode == NOT_EMPTY and await self._bare(pool, ident):
            done = await self._cluster.rbd("trash", "rm", "--no-progress", spec, ok=_STAYS, timeout=LONG_S)
        return done.returncode == 0

    async def _bare(self, pool: str, ident: str) -> bool:
        """Take our own snapshots off it; whether there were any."""
        where = ("--pool", pool, "--image-id", ident)
        rows = await self._cluster.asked("snap", "ls", *where, none=(NOT_THERE,)) or []
        ours = [row["name"] for row in rows if row["name"] == names.BASE or row["name"].startswith(names.MOMENT)]
        for name in ours:
            await self._cluster.rbd("snap", "rm", "--no-progress", *where, "--snap", name, ok=_STAYS)
        return bool(ours)
