"""The back end `file`: each volume is a sparse raw file.

Layout below its folder: `volumes/ID`, `snapshots/ID`, `partial/ID` for what is half-made, and `unmanaged/NAME` for what
others made; the last step of making something is the rename out of `partial`. Clones and snapshots share data where
the file system can (reflink), else the copy engine makes a sparse copy. Callers: job handlers, by way of
`agent.backends.base`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from agent.backends import unmanaged
from agent.backends.abilities import Foreign
from agent.backends.base import CloneSource, Held, PoolState, Trouble, Work
from agent.backends.config import FolderConfig
from agent.backends.errors import (
    HeldByConsumer,
    NoSpace,
    OverSubscribed,
    ShrinkRefused,
    VolumeExists,
    VolumeNotFound,
    translated,
)
from agent.backends.folder import Folder, can_reflink, open_root
from agent.backends.qemu_locks import may_resize
from agent.base.errors import BrickyardError
from agent.base.ids import checked_id
from agent.copying.engine import copy
from agent.copying.errors import DestinationFull
from agent.copying.model import Dest, Source, by_name
from agent.host import sysfs
from agent.host.run import uninterrupted
from agent.wire.results import ratio_in_force

_T = TypeVar("_T")
Run = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]
"""How what blocks is run: in a thread, perhaps with more around it."""


class FileBackend:
    """See `agent.backends.base.Backend`. Opening it makes the folders and asks the file system once for reflink."""

    def __init__(self, name: str, config: FolderConfig, run: Run = asyncio.to_thread) -> None:
        self._name, self._config, self._run = name, config, run
        with translated(name):
            self._root_fd = open_root(config.path)
            self._volumes = Folder(self._root_fd, "volumes")
            self._snapshots = Folder(self._root_fd, "snapshots")
            self._partial = Folder(self._root_fd, "partial")
            self._unmanaged = Folder(self._root_fd, "unmanaged")
            self._reflink = can_reflink(self._partial)
            self._lock = threading.Lock()
            self._changes = self._changing_now = 0
            self._promised = _sum(self._scan())

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        for folder in (self._volumes, self._snapshots, self._partial, self._unmanaged):
            folder.close()
        os.close(self._root_fd)

    def device(self) -> int:
        """The device number of what the folders lie on. Blocking."""
        return os.fstat(self._root_fd).st_dev

    async def pools(self) -> tuple[PoolState, ...]:
        return (await self.pool(),)

    async def pool(self) -> PoolState:
        """The one pool: what the file system has; promised bytes without a scan, unless others promise too."""
        if self._config.cluster_name is not None:
            await self._call(self._inventory)
        (total, free), foreign = await self._call(self._capacity), await self._call(self._foreign)
        return PoolState(
            name=self._name, driver="file", total_bytes=total, free_bytes=free, allocated_bytes=self._promised,
            byte_granular=True, thin=True, reflink=self._reflink, foreign_bytes=foreign, **self._config.placement(),
        )  # fmt: skip

    async def create(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        await self._call(self._create, checked_id(volume_id, "volume"), device_bytes)

    async def prepare(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        """Raises VolumeExists when the volume is published already: ask `size()` first."""
        name = checked_id(volume_id, "volume")
        have = await self._call(self._volumes.size, name)
        if have is not None:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have, need=device_bytes)
        await self._call(partial(self._make_partial, name, device_bytes, keep=self._may_keep(work)))
        return self._config.path / "partial" / name

    async def prepared(self, volume_id: str) -> int | None:
        return await self._call(self._partial.size, checked_id(volume_id, "volume"))

    async def publish(self, volume_id: str) -> None:
        await self._call(self._publish, checked_id(volume_id, "volume"), self._volumes)

    async def discard(self, volume_id: str) -> None:
        await self._call(self._partial.remove, checked_id(volume_id, "volume"))

    async def clone(self, volume_id: str, device_bytes: int, source: CloneSource, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        if await self._call(self._there, self._volumes, name, device_bytes):
            return
        folder = self._volumes if source.kind == "volume" else self._snapshots
        size = await self._must(folder, checked_id(source.id, source.kind), source.kind)
        if device_bytes < size:
            raise ShrinkRefused(id=name, have=size, need=device_bytes)
        await self._copy(Source(by_name(folder.fd, source.id), size), name, device_bytes, work or Work())
        await self._call(self._publish, name, self._volumes)

    async def extend(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        have = await self._must(self._volumes, name, "volume")
        if device_bytes < have:
            raise ShrinkRefused(id=name, have=have, need=device_bytes)
        await self._call(self._extend, name, have, device_bytes)

    async def delete(self, volume_id: str, work: Work | None = None) -> None:
        await self._call(self._delete, self._volumes, checked_id(volume_id, "volume"))

    async def snapshot(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        name = checked_id(snapshot_id, "snapshot")
        have = await self._call(self._snapshots.size, name)
        if have is not None:
            await self._call(self._snapshots.sync)
            return have
        size = await self._must(self._volumes, checked_id(volume_id, "volume"), "volume")
        await self._copy(Source(by_name(self._volumes.fd, volume_id), size), name, size, work or Work())
        await self._call(self._publish, name, self._snapshots)
        return size

    async def delete_snapshot(self, snapshot_id: str, work: Work | None = None) -> None:
        await self._call(self._delete, self._snapshots, checked_id(snapshot_id, "snapshot"))

    async def revert(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        name = checked_id(volume_id, "volume")
        have = await self._must(self._volumes, name, "volume")
        size = await self._must(self._snapshots, checked_id(snapshot_id, "snapshot"), "snapshot")
        if size != have:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have, need=size)
        await self._copy(Source(by_name(self._snapshots.fd, snapshot_id), size), name, size, work or Work())
        await self.replace(name)
        return size

    async def prepare_anew(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        name = checked_id(volume_id, "volume")
        await self._call(partial(self._make_partial, name, device_bytes, keep=self._may_keep(work)))
        return self._config.path / "partial" / name

    async def replace(self, volume_id: str) -> None:
        await self._call(self._replace, checked_id(volume_id, "volume"))

    async def foreign(self) -> list[Foreign]:
        return await self._call(unmanaged.listing, self._unmanaged)

    async def adopt(self, kind: Literal["volume", "snapshot"], new_id: str, name: str, device_bytes: int) -> None:
        await self._call(self._adopt, kind, checked_id(new_id, kind), name, device_bytes)

    async def release(
        self, kind: Literal["volume", "snapshot"], old_id: str, source: str = "", *, name: str = ""
    ) -> str:
        return await self._call(self._release, kind, checked_id(old_id, kind), source, name)

    async def size(self, volume_id: str) -> int | None:
        return await self._call(self._volumes.size, checked_id(volume_id, "volume"))

    async def path(self, volume_id: str) -> Path:
        await self._must(self._volumes, checked_id(volume_id, "volume"), "volume")
        return self._config.path / "volumes" / volume_id

    async def source_path(self, source: CloneSource) -> Path:
        if source.kind == "volume":
            return await self.path(source.id)
        await self._must(self._snapshots, checked_id(source.id, "snapshot"), "snapshot")
        return self._config.path / "snapshots" / source.id

    async def holders(self, volume_id: str, *, writers: bool) -> list[str]:
        """Loop devices on the volume's file, whoever made them."""
        name = checked_id(volume_id, "volume")
        if await self._call(self._volumes.size, name) is None:
            return []
        loops = [loop for loop in sysfs.loop_devices() if loop.file_name == name and not (writers and loop.read_only)]
        return [f"/dev/{loop.name}" + _named(sysfs.users_of(loop.name)) for loop in loops]

    async def inventory(self) -> list[Held]:
        return await self._call(self._inventory)

    async def issues(self) -> list[Trouble]:
        return []

    # What blocks, one call of a thread each.

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

    def _there(self, folder: Folder, name: str, device_bytes: int) -> bool:
        """Whether it is there in that size; VolumeExists when it is there in another one."""
        have = folder.size(name)
        if have is not None and have != device_bytes:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have, need=device_bytes)
        if have is not None:
            # An earlier try may have been killed between the rename and this.
            folder.sync()
        return have is not None

    def _create(self, name: str, device_bytes: int) -> None:
        if not self._there(self._volumes, name, device_bytes):
            self._make_partial(name, device_bytes, keep=False)
            self._rename(name, self._volumes)

    def _may_keep(self, work: Work | None) -> bool:
        """Whether what an earlier try has made may be gone on with; another host's is never: it may still write."""
        begun = work is not None and work.checkpoint is not None and work.checkpoint.start > 0
        return self._config.cluster_name is None or begun

    def _make_partial(self, name: str, device_bytes: int, *, keep: bool) -> bool:
        """Make a half-made file of that size; whether what an earlier try wrote was kept."""
        self._may_promise(device_bytes)
        if not keep and self._config.cluster_name is not None:
            self._partial.remove(name)
        with self._partial.opened(name, os.O_RDWR | os.O_CREAT) as fd:
            have = os.fstat(fd).st_size
            if keep and have == device_bytes:
                return True
            if have:
                os.ftruncate(fd, 0)
            os.ftruncate(fd, device_bytes)
            return False

    def _publish(self, name: str, to: Folder) -> None:
        if self._partial.status(name) is None:
            if to.status(name) is None:
                raise VolumeNotFound(noun="Half-made volume", id=name, backend=self._name)
            to.sync()
            return
        with self._partial.opened(name, os.O_RDWR) as fd:
            os.fsync(fd)
        self._rename(name, to)

    def _rename(self, name: str, to: Folder) -> None:
        with self._changing() as promise:
            size = self._partial.size(name) or 0
            self._partial.move(name, to)
            promise(size)
        to.sync()

    def _replace(self, name: str) -> None:
        if self._partial.status(name) is not None:
            with self._partial.opened(name, os.O_RDWR) as fd:
                os.fsync(fd)
            with self._changing() as promise:
                size, before = self._partial.size(name) or 0, self._volumes.size(name) or 0
                self._partial.move(name, self._volumes)
                promise(size - before)
        self._volumes.sync()

    def _of(self, kind: str) -> Folder:
        return self._volumes if kind == "volume" else self._snapshots

    def _adopt(self, kind: str, new_id: str, name: str, device_bytes: int) -> None:
        if self._there(self._of(kind), new_id, device_bytes):
            self._unmanaged.sync()
            return
        with self._changing() as promise:
            unmanaged.adopt(self._unmanaged, unmanaged.Chosen(name, device_bytes), self._of(kind), new_id, self._name)
            promise(device_bytes)

    def _release(self, kind: str, old_id: str, source: str, name: str) -> str:
        name = name or unmanaged.released_name(kind, old_id, source)
        with self._changing() as promise:
            promise(-(unmanaged.release(self._of(kind), old_id, self._unmanaged, name, self._name) or 0))
        return name

    def _extend(self, name: str, have: int, device_bytes: int) -> None:
        if device_bytes > have:
            self._may_promise(device_bytes - have)
        with self._volumes.opened(name, os.O_RDWR) as fd:
            if not may_resize(fd):
                raise HeldByConsumer(id=name)
            with self._changing() as promise:
                os.ftruncate(fd, device_bytes)
                promise(device_bytes - have)
            os.fsync(fd)

    def _delete(self, folder: Folder, name: str) -> None:
        self._partial.remove(name)
        with self._changing() as promise:
            promise(-(folder.remove(name) or 0))
        folder.sync()

    async def _copy(self, source: Source, to: str, device_bytes: int, work: Work) -> None:
        keep = work.checkpoint is not None and self._may_keep(work)
        kept = await self._call(partial(self._make_partial, to, device_bytes, keep=keep))
        # A checkpoint is about a file; without that file it must not be believed.
        checkpoint = work.checkpoint if kept or work.checkpoint is None else replace(work.checkpoint, start=0)
        options = work.options
        if options.rate_limit is None and self._config.rate_limit is not None:
            options = replace(options, rate_limit=self._config.rate_limit)
        options = replace(options, reflink=options.reflink and self._reflink)
        dest = Dest(by_name(self._partial.fd, to), device_bytes, zeros_skippable=True)
        try:
            await copy(source, dest, options, work.progress, checkpoint, work.cancel)
        except BrickyardError as failure:
            await self._call(self._partial.remove, to)
            if isinstance(failure, DestinationFull):
                raise NoSpace(backend=self._name) from failure
            raise

    def _capacity(self) -> tuple[int, int]:
        found = os.fstatvfs(self._root_fd)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def _foreign(self) -> int:
        return sum(held.device_bytes for held in self._unmanaged.held("volume"))

    def _may_promise(self, more: int) -> None:
        total, free = self._capacity()
        wanted = self._config.max_over_subscription
        ratio = ratio_in_force(wanted, total=total, free=free, promised=self._promised)
        limit = int((total - total * self._config.reserved_percent // 100) * ratio)
        if self._promised + more > limit:
            raise OverSubscribed(backend=self._name, allocated=self._promised, limit=limit, need=more)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Callable[[int], None]]:
        """Around each change of files and of the promised sum, so that a scan knows whether the two agree."""

        def promise(more: int) -> None:
            with self._lock:
                self._promised += more

        with self._lock:
            self._changes += 1
            self._changing_now += 1
        try:
            yield promise
        finally:
            with self._lock:
                self._changing_now -= 1

    def _inventory(self) -> list[Held]:
        """Scan; what was promised is counted anew when nothing changed meanwhile (files may go by other hands)."""
        with self._lock:
            before = None if self._changing_now else self._changes
        found = self._scan()
        with self._lock:
            if self._changes == before:
                self._promised = _sum(found)
        return found

    def _scan(self) -> list[Held]:
        return [*self._volumes.held("volume"), *self._snapshots.held("snapshot"), *self._partial.held("leftover")]


def _sum(found: list[Held]) -> int:
    return sum(held.device_bytes for held in found if held.kind != "leftover")


def _named(users: tuple[str, ...]) -> str:
    return f" ({', '.join(users)})" if users else ""
