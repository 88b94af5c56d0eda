"""The room in a pool of Ceph, and the promises made on it.

What is held is listed anew after a minute; what was promised since is counted on top of the list.
"""

from __future__ import annotations

import asyncio
import time

from agent.backends import rbd_names as names
from agent.backends.base import Held, PoolState
from agent.backends.errors import NoSpace, OverSubscribed
from agent.backends.rbd_cluster import NOT_THERE, Monitors, RbdCluster
from agent.backends.rbd_errors import SpaceUntold
from agent.wire.results import RbdAccess, ratio_in_force

_KEEP_S, _KEEP_ROOM_S = 60.0, 15.0


class Space:
    """Lives on one event loop."""

    def __init__(self, cluster: RbdCluster) -> None:
        self._cluster = cluster
        self._listed: tuple[float, list[names.Listed]] | None = None
        self._room: tuple[float, int, int] | None = None
        self._monitors: tuple[float, Monitors] | None = None
        self._since = 0
        self._reading = asyncio.Lock()

    async def listed(self, *, fresh: bool = False) -> list[names.Listed]:
        """All images of the pool."""
        async with self._reading:
            if fresh or self._listed is None or time.monotonic() - self._listed[0] > _KEEP_S:
                self._since = 0
                at = time.monotonic()
                # One that goes while the list is made ends the tool with this status, and is simply not in the list.
                done = await self._cluster.asked("ls", "-l", self._cluster.pool, none=(NOT_THERE,))
                if done is None:
                    done = await self._cluster.asked("ls", "-l", self._cluster.pool)
                self._listed = (at, names.of_list(done))
            return self._listed[1]

    def promise(self, more: int) -> None:
        """So many bytes were promised, or given back, since the list was made."""
        self._since += more

    async def room(self) -> tuple[int, int]:
        """Total and free bytes of the pool, by its quota where that is less; both 0: the cluster does not say yet."""
        if self._room is None or time.monotonic() - self._room[0] > _KEEP_ROOM_S:
            stats = await self._cluster.df()
            used, free, quota = (int(stats.get(key, 0)) for key in ("stored", "max_avail", "quota_bytes"))
            if used + free == 0:
                return 0, 0
            total = used + free
            if quota:
                total, free = min(total, quota), max(0, min(free, quota - used))
            self._room = (time.monotonic(), total, free)
        return self._room[1], self._room[2]

    async def admit(self, more: int) -> None:
        """Whether `more` bytes may be promised: NoSpace, OverSubscribed, SpaceUntold."""
        (total, free), config = await self.room(), self._cluster.config
        if total == 0:
            raise SpaceUntold(backend=self._cluster.backend, pool=config.pool)
        if free <= 0:
            self._room = None
            raise NoSpace(backend=self._cluster.backend)
        ours, foreign = await self._sums()
        ratio = ratio_in_force(config.max_over_subscription, total=total, free=free, promised=ours + foreign)
        limit = int((total - total * config.reserved_percent // 100) * ratio)
        if ours + foreign + more > limit:
            raise OverSubscribed(backend=self._cluster.backend, allocated=ours + foreign, limit=limit, need=more)

    async def state(self) -> PoolState:
        (total, free), (ours, foreign) = await self.room(), await self._sums()
        return PoolState(
            name=self._cluster.backend, driver="rbd", total_bytes=total, free_bytes=free, allocated_bytes=ours,
            byte_granular=True, thin=True, reflink=True, protocols=("rbd",), foreign_bytes=foreign,
            rbd=await self._access(),
            **self._cluster.config.placement(),
        )  # fmt: skip

    async def _access(self) -> RbdAccess:
        config, known = self._cluster.config, await self.monitors()
        return RbdAccess(
            cluster_name=config.conf.stem, pool=config.pool, image_prefix=names.image("volume", ""),
            user=config.user, monitors=known.places, fsid=known.fsid,
            secret_uuid=str(config.secret_uuid) if config.secret_uuid is not None else None,
        )  # fmt: skip

    async def monitors(self) -> Monitors:
        """They come and go, so they are asked for now and then."""
        if self._monitors is None or time.monotonic() - self._monitors[0] > _KEEP_S:
            self._monitors = (time.monotonic(), await self._cluster.monitors())
        return self._monitors[1]

    async def held(self) -> list[Held]:
        """What an image takes up in the cluster is not asked: that would read the map of each."""
        found = [(names.parsed(one.name), one) for one in await self.listed(fresh=True)]
        return [Held(named[0], named[1], one.size, 0) for named, one in found if named is not None]

    async def _sums(self) -> tuple[int, int]:
        """Bytes promised here, and by what others made in the pool."""
        ours = foreign = 0
        for one in await self.listed():
            named = names.parsed(one.name)
            if named is None:
                foreign += one.size
            elif named[0] != "leftover":
                ours += one.size
        return max(0, ours + self._since), foreign
