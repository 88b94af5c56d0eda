"""The steps of which the verbs of an RBD back end are made: images found, made, cloned, published, dropped.

Each may be repeated after a kill at any line. What the cluster says is asked each time, so nothing is stale.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from agent.backends import rbd_names as names
from agent.backends.base import CloneSource, Kind, Work
from agent.backends.config import RbdBackendConfig
from agent.backends.errors import VolumeExists, VolumeNotFound
from agent.backends.rbd_cluster import EXISTS, LONG_S, NOT_THERE, RbdCluster
from agent.backends.rbd_errors import ImageBusy
from agent.backends.rbd_names import BASE, MOMENT, Image
from agent.backends.rbd_open import Openings
from agent.backends.rbd_space import Space
from agent.backends.rbd_trash import Trash
from agent.base.faults import declare, fault_point
from agent.copying.errors import CopyCancelled

declare("backend.rbd.made", "backend.rbd.moment", "backend.rbd.cloned", "backend.rbd.flat", "backend.rbd.published")
declare("backend.rbd.trashed")
_WATCHED_S, _LOOK_S = 40.0, 2.0


class RbdSteps:
    """What one back end works with. Making it asks the cluster nothing: one that is away may come back."""

    def __init__(self, name: str, config: RbdBackendConfig) -> None:
        self._name, self._config = name, config
        self._cluster = RbdCluster(name, config)
        self._space = Space(self._cluster)
        self._open = Openings(self._cluster)
        self._trash = Trash(self._cluster)

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        """Images that are shown still go with the privileged daemon."""
        self._open.close()
        self._trash.close()

    def _spec(self, kind: Kind, name: str, snapshot: str = "") -> str:
        return self._cluster.spec(names.image(kind, name)) + (f"@{snapshot}" if snapshot else "")

    async def _image(self, kind: Kind, name: str) -> Image | None:
        told = await self._cluster.asked("info", self._spec(kind, name), none=(NOT_THERE,))
        return None if told is None else names.of_info(told)

    async def _must(self, kind: Kind, name: str) -> Image:
        found = await self._image(kind, name)
        if found is None:
            noun = "Half-made volume" if kind == "leftover" else kind.capitalize()
            raise VolumeNotFound(noun=noun, id=name, backend=self._name)
        return found

    async def _there(self, name: str, device_bytes: int) -> bool:
        have = await self._image("volume", name)
        if have is not None and have.size != device_bytes:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have.size, need=device_bytes)
        return have is not None

    async def _make(self, image: str, device_bytes: int) -> None:
        await self._cluster.rbd("create", "--size", f"{device_bytes}B", self._cluster.spec(image), ok=(EXISTS,))
        fault_point("backend.rbd.made")

    async def _partial(self, name: str, device_bytes: int, work: Work | None) -> Path:
        have = await self._image("leftover", name)
        begun = work is not None and work.begun
        # Another host of a cluster may still write to what it has begun; what goes on from a checkpoint is our own.
        if have is not None and (have.size != device_bytes or not (begun or self._config.cluster_name is None)):
            await self._drop("leftover", name)
            have = None
        if have is None:
            await self._space.admit(device_bytes)
            await self._make(names.image("leftover", name), device_bytes)
        return await self._open.path(names.image("leftover", name), writable=True)

    async def _clone(self, source: CloneSource, name: str, work: Work) -> None:
        """A half-made volume that shares the data of `source` as it is now."""
        # One of an earlier try may be of another moment, and there is nothing to be saved by keeping it.
        await self._drop("leftover", name)
        moment = BASE if source.kind == "snapshot" else MOMENT + name
        origin = self._spec(source.kind, source.id, moment)
        if source.kind == "volume":
            await self._open.settle(names.image("volume", source.id))
            await self._cluster.rbd("snap", "rm", "--no-progress", origin, ok=(NOT_THERE,))
            await self._cluster.rbd("snap", "create", "--no-progress", origin)
        fault_point("backend.rbd.moment")
        await self._cluster.rbd("clone", origin, self._spec("leftover", name))
        fault_point("backend.rbd.cloned")
        if source.kind == "volume":
            # What is cloned stays in Ceph's own trash for as long as the clone needs it.
            await self._cluster.rbd("snap", "rm", "--no-progress", origin, ok=(NOT_THERE,))
        if await self._depth(name) > self._config.clone_depth:
            await self._flatten(name, work)
            fault_point("backend.rbd.flat")

    async def _depth(self, name: str) -> int:
        depth, found = 0, await self._must("leftover", name)
        while found.parent is not None and depth <= self._config.clone_depth:
            pool, above = found.parent
            depth += 1
            told = await self._cluster.asked("info", "--pool", pool, "--image-id", above, none=(NOT_THERE,))
            if told is None:
                break
            found = names.of_info(told)
        return depth

    async def _flatten(self, name: str, work: Work) -> None:
        flat = asyncio.create_task(
            self._cluster.rbd("flatten", "--no-progress", self._spec("leftover", name), timeout=LONG_S)
        )
        told = asyncio.create_task(work.cancel.wait())
        try:
            await asyncio.wait({flat, told}, return_when=asyncio.FIRST_COMPLETED)
            if not flat.done():
                raise CopyCancelled(done=0, total=0)
            flat.result()
        finally:
            told.cancel()
            flat.cancel()
            await asyncio.wait({flat})

    async def _grow(self, kind: Kind, name: str, device_bytes: int) -> None:
        await self._cluster.rbd("resize", "--no-progress", "--size", f"{device_bytes}B", self._spec(kind, name))

    async def _publish(self, name: str, kind: Kind) -> None:
        await self._open.release(names.image("leftover", name))
        found = await self._image("leftover", name)
        if found is None:
            if await self._image(kind, name) is None:
                raise VolumeNotFound(noun="Half-made volume", id=name, backend=self._name)
            return
        await self._cluster.rbd("rename", self._spec("leftover", name), self._spec(kind, name))
        fault_point("backend.rbd.published")
        self._space.promise(found.size)

    async def _drop(self, kind: Kind, name: str) -> None:
        image = names.image(kind, name)
        await self._open.abandon(image)
        found = await self._image(kind, name)
        if found is None:
            return
        watchers = await self._watchers(image)
        if watchers:
            raise ImageBusy(
                name=f"{kind.capitalize()} {name}", backend=self._name, image=image, pool=self._config.pool,
                reason=", ".join(watchers),
            )  # fmt: skip
        await self._trash.take(image)
        fault_point("backend.rbd.trashed")
        if kind != "leftover":
            self._space.promise(-found.size)

    async def _shown(self, kind: Kind, name: str, *, writable: bool) -> Path:
        await self._must(kind, name)
        return await self._open.path(names.image(kind, name), writable=writable)

    async def _watchers(self, image: str) -> list[str]:
        """Who has the image open after all that has died is forgotten."""
        deadline = time.monotonic() + _WATCHED_S
        while True:
            told = await self._cluster.asked("status", self._cluster.spec(image), none=(NOT_THERE,))
            found = [f"client.{one['client']} at {one['address']}" for one in (told or {}).get("watchers", ())]
            if not found or time.monotonic() > deadline:
                return found
            # The cluster has no event for this.
            await asyncio.sleep(_LOOK_S)
