"""The back end `file`: each volume is a sparse raw file (`agent.backends.file_tree`).

Clones and snapshots share data where the file system can (reflink), else the copy engine makes a sparse copy. What
blocks is one call of a thread each. Callers: job handlers, by way of `agent.backends.base`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from agent.backends import unmanaged
from agent.backends.abilities import Foreign
from agent.backends.base import CloneSource, Held, PoolState, Trouble, Work
from agent.backends.config import FolderConfig
from agent.backends.errors import (
    NoSpace,
    ShrinkRefused,
    VolumeExists,
    VolumeNotFound,
    translated,
)
from agent.backends.file_tree import FileTree
from agent.backends.folder import Folder
from agent.base.errors import BrickyardError
from agent.base.ids import checked_id
from agent.copying.engine import copy
from agent.copying.errors import DestinationFull
from agent.copying.model import Dest, Source, by_name
from agent.copying.throttle import Throttle
from agent.host import sysfs
from agent.host.run import uninterrupted

_T = TypeVar("_T")
Run = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]
"""How what blocks is run: in a thread, perhaps with more around it."""


class FileBackend:
    """See `agent.backends.base.Backend`. Opening it makes the folders and asks the file system once for reflink."""

    def __init__(self, name: str, config: FolderConfig, run: Run = asyncio.to_thread) -> None:
        self._name, self._config, self._run = name, config, run
        self.budget = Throttle(config.rate_limit)
        with translated(name):
            self._tree = FileTree(name, config)

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        self._tree.close()

    def device(self) -> int:
        """The device number of what the folders lie on. Blocking."""
        return self._tree.device()

    async def pools(self) -> tuple[PoolState, ...]:
        return (await self.pool(),)

    async def pool(self) -> PoolState:
        """The one pool: what the file system has; promised bytes without a scan, unless others promise too."""
        if self._config.cluster_name is not None:
            await self._call(self._tree.space.inventory)
        (total, free), foreign = await self._call(self._tree.space.capacity), await self._call(self._tree.foreign_bytes)
        return PoolState(
            name=self._name, driver="file", total_bytes=total, free_bytes=free,
            allocated_bytes=self._tree.space.promised, byte_granular=True, thin=True, reflink=self._tree.reflink,
            foreign_bytes=foreign, **self._config.placement(),
        )  # fmt: skip

    async def create(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        await self._call(self._tree.create, checked_id(volume_id, "volume"), device_bytes)

    async def prepare(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        """Raises VolumeExists when the volume is published already: ask `size()` first."""
        name = checked_id(volume_id, "volume")
        have = await self._call(self._tree.volumes.size, name)
        if have is not None:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have, need=device_bytes)
        await self._call(partial(self._tree.begin, name, device_bytes, keep=self._may_keep(work)))
        return self._config.path / "partial" / name

    async def prepared(self, volume_id: str) -> int | None:
        return await self._call(self._tree.partial.size, checked_id(volume_id, "volume"))

    async def publish(self, volume_id: str) -> None:
        await self._call(self._tree.publish, checked_id(volume_id, "volume"), self._tree.volumes)

    async def discard(self, volume_id: str) -> None:
        await self._call(self._tree.partial.remove, checked_id(volume_id, "volume"))

    async def clone(self, volume_id: str, device_bytes: int, source: CloneSource, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        if await self._call(self._tree.is_there, self._tree.volumes, name, device_bytes):
            return
        folder = self._tree.of(source.kind)
        size = await self._must(folder, checked_id(source.id, source.kind), source.kind)
        if device_bytes < size:
            raise ShrinkRefused(id=name, have=size, need=device_bytes)
        work = work or Work()
        if source.kind == "volume":
            work = await self._of_one_moment(source.id, work)
        await self._copy(Source(by_name(folder.fd, source.id), size), name, device_bytes, work)
        await self._call(self._tree.publish, name, self._tree.volumes)

    async def extend(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        have = await self._must(self._tree.volumes, name, "volume")
        if device_bytes < have:
            raise ShrinkRefused(id=name, have=have, need=device_bytes)
        await self._call(self._tree.extend, name, have, device_bytes)

    async def delete(self, volume_id: str, work: Work | None = None) -> None:
        await self._call(self._tree.delete, self._tree.volumes, checked_id(volume_id, "volume"))

    async def snapshot(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        name = checked_id(snapshot_id, "snapshot")
        have = await self._call(self._tree.snapshots.size, name)
        if have is not None:
            await self._call(self._tree.snapshots.sync)
            return have
        size = await self._must(self._tree.volumes, checked_id(volume_id, "volume"), "volume")
        work = await self._of_one_moment(volume_id, work or Work())
        await self._copy(Source(by_name(self._tree.volumes.fd, volume_id), size), name, size, work)
        await self._call(self._tree.publish, name, self._tree.snapshots)
        return size

    async def delete_snapshot(self, snapshot_id: str, work: Work | None = None) -> None:
        await self._call(self._tree.delete, self._tree.snapshots, checked_id(snapshot_id, "snapshot"))

    async def revert(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        name = checked_id(volume_id, "volume")
        have = await self._must(self._tree.volumes, name, "volume")
        size = await self._must(self._tree.snapshots, checked_id(snapshot_id, "snapshot"), "snapshot")
        if size != have:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have, need=size)
        await self._copy(Source(by_name(self._tree.snapshots.fd, snapshot_id), size), name, size, work or Work())
        await self.replace(name)
        return size

    async def prepare_anew(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        name = checked_id(volume_id, "volume")
        await self._call(partial(self._tree.begin, name, device_bytes, keep=self._may_keep(work)))
        return self._config.path / "partial" / name

    async def replace(self, volume_id: str) -> None:
        await self._call(self._tree.replace, checked_id(volume_id, "volume"))

    async def foreign(self) -> list[Foreign]:
        return await self._call(unmanaged.listing, self._tree.unmanaged)

    async def adopt(self, kind: Literal["volume", "snapshot"], new_id: str, name: str, device_bytes: int) -> None:
        await self._call(self._tree.adopt, kind, checked_id(new_id, kind), name, device_bytes)

    async def release(
        self, kind: Literal["volume", "snapshot"], old_id: str, source: str = "", *, name: str = ""
    ) -> str:
        return await self._call(self._tree.release, kind, checked_id(old_id, kind), source, name)

    async def size(self, volume_id: str) -> int | None:
        return await self._call(self._tree.volumes.size, checked_id(volume_id, "volume"))

    async def path(self, volume_id: str) -> Path:
        await self._must(self._tree.volumes, checked_id(volume_id, "volume"), "volume")
        return self._config.path / "volumes" / volume_id

    async def source_path(self, source: CloneSource) -> Path:
        if source.kind == "volume":
            return await self.path(source.id)
        await self._must(self._tree.snapshots, checked_id(source.id, "snapshot"), "snapshot")
        return self._config.path / "snapshots" / source.id

    async def holders(self, volume_id: str, *, writers: bool) -> list[str]:
        """Loop devices on the volume's file, whoever made them."""
        name = checked_id(volume_id, "volume")
        if await self._call(self._tree.volumes.size, name) is None:
            return []
        loops = [loop for loop in sysfs.loop_devices() if loop.file_name == name and not (writers and loop.read_only)]
        return [f"/dev/{loop.name}" + _named(sysfs.users_of(loop.name)) for loop in loops]

    async def inventory(self) -> list[Held]:
        return await self._call(self._tree.space.inventory)

    async def issues(self) -> list[Trouble]:
        return []

    async def _call(self, blocking: Callable[..., _T], *args: object) -> _T:
        def inside() -> _T:
            with translated(self._name):
                return blocking(*args)

        done: _T = await uninterrupted(self._run(inside))
        return done

    async def _must(self, folder: Folder, name: str, noun: str) -> int:
        size = await self._call(folder.size, name)
        if size is None:
            raise VolumeNotFound(noun=noun.capitalize(), id=name, backend=self._name)
        return size

    def _may_keep(self, work: Work | None) -> bool:
        """Whether what an earlier try has made may be gone on with; another host's is never: it may still write."""
        return self._config.cluster_name is None or (work is not None and work.begun)

    async def _of_one_moment(self, volume_id: str, work: Work) -> Work:
        """Files of one file system may share or not, each by its own flags: one in use is shared, or left alone."""
        if not self._tree.reflink:
            return work
        locked = await self._call(self._tree.is_locked, volume_id)
        used = locked or bool(await self.holders(volume_id, writers=True))
        return replace(work, options=replace(work.options, share_only=used))

    async def _copy(self, source: Source, to: str, device_bytes: int, work: Work) -> None:
        keep = work.checkpoint is not None and self._may_keep(work)
        kept = await self._call(partial(self._tree.begin, to, device_bytes, keep=keep))
        # A checkpoint is about a file; without that file it must not be believed.
        checkpoint = work.checkpoint if kept or work.checkpoint is None else replace(work.checkpoint, start=0)
        options = work.options.within(self.budget)
        options = replace(options, reflink=options.reflink and self._tree.reflink)
        dest = Dest(by_name(self._tree.partial.fd, to), device_bytes, zeros_skippable=True)
        try:
            await copy(source, dest, options, work.progress, checkpoint, work.cancel)
        except BrickyardError as failure:
            await self._call(self._tree.partial.remove, to)
            if isinstance(failure, DestinationFull):
                raise NoSpace(backend=self._name) from failure
            raise


def _named(users: tuple[str, ...]) -> str:
    return f" ({', '.join(users)})" if users else ""
