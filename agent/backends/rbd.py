"""The back end `rbd`: each volume is an image in a pool of a Ceph cluster.

The last step of making something is the rename from its half-made name (`rbd_names`). Snapshots and clones share data
(clones of format 2), and are flattened where the chain would get too long. What is deleted goes to the pool's trash at
once, whatever shares data with it, and is removed from there as soon as nothing does (`rbd_trash`). The agent reads and
writes by files that show images (`rbd_open`). Callers: job handlers, by way of `agent.backends.base`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from agent.backends import rbd_names as names
from agent.backends.base import CloneSource, Held, PoolState, Trouble, Work
from agent.backends.config import RbdBackendConfig
from agent.backends.errors import ShrinkRefused, VolumeExists
from agent.backends.rbd_cluster import EXISTS
from agent.backends.rbd_errors import ImageBusy
from agent.backends.rbd_names import BASE
from agent.backends.rbd_patience import Patient
from agent.backends.rbd_steps import RbdSteps
from agent.base.errors import BrickyardError
from agent.base.ids import checked_id
from agent.wire.jobs import CephImage, Connection, Portal


class RbdBackend(RbdSteps):
    """See `agent.backends.base.Backend`."""

    def __init__(self, name: str, config: RbdBackendConfig) -> None:
        super().__init__(name, config)
        self._failed: dict[str, Trouble] = {}
        self._state = Patient(name, self._space.state, config.deadline_s)

    def close(self) -> None:
        super().close()
        self._state.close()

    async def pools(self) -> tuple[PoolState, ...]:
        with self._noting():
            state = await self._state.get()
        self._trash.tend()
        self._open.tend()
        return (state,)

    async def create(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        if await self._there(name, device_bytes):
            return
        await self._space.admit(device_bytes)
        await self._make(names.image("volume", name), device_bytes)
        await self._there(name, device_bytes)
        self._space.promise(device_bytes)

    async def prepare(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        """Raises VolumeExists when the volume is published already: ask `size()` first."""
        name = checked_id(volume_id, "volume")
        have = await self._image("volume", name)
        if have is not None:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have.size, need=device_bytes)
        return await self._partial(name, device_bytes, work)

    async def prepared(self, volume_id: str) -> int | None:
        found = await self._image("leftover", checked_id(volume_id, "volume"))
        return None if found is None else found.size

    async def publish(self, volume_id: str) -> None:
        await self._publish(checked_id(volume_id, "volume"), "volume")

    async def discard(self, volume_id: str) -> None:
        await self._drop("leftover", checked_id(volume_id, "volume"))

    async def clone(self, volume_id: str, device_bytes: int, source: CloneSource, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        if await self._there(name, device_bytes):
            return
        found = await self._must(source.kind, checked_id(source.id, source.kind))
        if device_bytes < found.size:
            raise ShrinkRefused(id=name, have=found.size, need=device_bytes)
        await self._space.admit(device_bytes)
        await self._clone(source, name, work or Work())
        if device_bytes > found.size:
            await self._grow("leftover", name, device_bytes)
        await self._publish(name, "volume")

    async def extend(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        have = await self._must("volume", name)
        if device_bytes < have.size:
            raise ShrinkRefused(id=name, have=have.size, need=device_bytes)
        if device_bytes > have.size:
            await self._space.admit(device_bytes - have.size)
            await self._open.settle(names.image("volume", name))
            await self._grow("volume", name, device_bytes)
            self._space.promise(device_bytes - have.size)

    async def delete(self, volume_id: str, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        await self._drop("leftover", name)
        await self._drop("volume", name)

    async def snapshot(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        name = checked_id(snapshot_id, "snapshot")
        have = await self._image("snapshot", name)
        if have is not None:
            return have.size
        found = await self._must("volume", checked_id(volume_id, "volume"))
        await self._space.admit(found.size)
        await self._clone(CloneSource("volume", volume_id), name, work or Work())
        await self._cluster.rbd("snap", "create", "--no-progress", self._spec("leftover", name, BASE), ok=(EXISTS,))
        await self._publish(name, "snapshot")
        return found.size

    async def delete_snapshot(self, snapshot_id: str, work: Work | None = None) -> None:
        name = checked_id(snapshot_id, "snapshot")
        await self._drop("leftover", name)
        await self._drop("snapshot", name)

    async def size(self, volume_id: str) -> int | None:
        found = await self._image("volume", checked_id(volume_id, "volume"))
        return None if found is None else found.size

    async def path(self, volume_id: str) -> Path:
        """Where the agent can read and write it, for a minute longer than somebody has it open."""
        return await self._shown("volume", checked_id(volume_id, "volume"), writable=True)

    async def source_path(self, source: CloneSource) -> Path:
        # A volume that others may write to is only read.
        writable = source.kind == "snapshot"
        return await self._shown(source.kind, checked_id(source.id, source.kind), writable=writable)

    async def holders(self, volume_id: str, *, writers: bool) -> list[str]:
        """Clients of the cluster that have the volume open. One that has died is waited for: it is told of for 30 s."""
        name = names.image("volume", checked_id(volume_id, "volume"))
        # QEMU tells the cluster of those that only read, too.
        with contextlib.suppress(ImageBusy):
            await self._open.release(name)
        return await self._watchers(name)

    async def inventory(self) -> list[Held]:
        with self._noting():
            await self._state.get()  # the list of a large pool takes its time, which a silent cluster must not
            return await self._space.held()

    def cluster_image(self, volume_id: str) -> str:
        return self._spec("volume", checked_id(volume_id, "volume"))

    async def reached(self, volume_id: str, *, read_only: bool) -> Connection:
        name = checked_id(volume_id, "volume")
        found, known = await self._must("volume", name), await self._space.monitors()
        await self._open.release(names.image("volume", name))
        return Connection(
            protocol="rbd",
            target=names.image("volume", name),
            portals=tuple(Portal(address=host, port=port) for host, port in known.places),
            identity=f"image.{found.id}",
            size_bytes=found.size,
            ceph=CephImage(pool=self._config.pool, fsid=known.fsid, messenger=known.messenger, read_only=read_only),
        )

    async def issues(self) -> list[Trouble]:
        with contextlib.suppress(BrickyardError):  # it is noted
            await self.pools()
        return [*self._failed.values()]

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Around what asks about the whole pool: a failure is noted for people until it works again."""
        try:
            yield
        except BrickyardError as error:
            known = self._failed.get(error.code)
            since = known.since if known is not None else time.time()
            self._failed = {error.code: Trouble(error.code, str(error), error.remedy, since)}
            raise
        self._failed = {}
