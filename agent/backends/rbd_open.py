"""Volumes in Ceph as files of this host, while the agent reads or writes them.

The privileged side shows each image by FUSE under the image's own name: sparse, writable, without a copy and without a
kernel driver. It goes with the agent, and after a while in which nobody had the file open. Where no image is shown,
there is no file either: nobody writes into the empty place below.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from agent.backends import rbd_names as names
from agent.backends.errors import StorageFailed, translated
from agent.backends.rbd_cluster import RbdCluster
from agent.backends.rbd_errors import ClusterHangs, ImageBusy, NoWayIn
from agent.base.errors import BrickyardError
from agent.privsep import ceph as verbs
from agent.privsep.client import call
from agent.privsep.errors import PrivilegeUnavailable, ProgramMissing, ShowFailed, VerbRefused

_IDLE_S, _LOOK_S = 60.0, 30.0


@dataclass(slots=True)
class _Shown:
    path: Path
    writable: bool
    used: float


class Openings:
    """The images of one back end that are open here. Lives on one event loop."""

    def __init__(self, cluster: RbdCluster) -> None:
        self._cluster = cluster
        self._shown: dict[str, _Shown] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tidying: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def close(self) -> None:
        for task in (self._tidying, self._sweeping):
            if task is not None:
                task.cancel()

    def tend(self) -> None:
        """Begin to take away what an earlier life has left, once; returns at once."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._swept())

    async def path(self, image: str, *, writable: bool) -> Path:
        """The file that shows the image. NoWayIn, ClusterHangs, CephFailed, ImageBusy."""
        async with self._lock(image):
            shown = self._shown.get(image)
            if shown is not None and shown.writable >= writable and await asyncio.to_thread(_lives, shown.path):
                shown.used = time.monotonic()
                return shown.path
            if shown is not None:
                await self._hide(image, force=not await asyncio.to_thread(_lives, shown.path))
            shown = await self._show(image, writable)
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self._tidy())
        return shown.path

    async def settle(self, image: str) -> None:
        """Let go of an image that may be written to here; one that is only read stays. Raises as `release`."""
        shown = self._shown.get(image)
        if shown is not None and shown.writable:
            await self.release(image)

    async def abandon(self, image: str) -> None:
        """Let go of the image at once, whatever is not written yet: it is not wanted any more."""
        async with self._lock(image):
            if image in self._shown:
                await self._hide(image, force=True)

    async def release(self, image: str) -> None:
        """Let go of the image, with all that was written to it safe in the cluster. ImageBusy, StorageFailed."""
        async with self._lock(image):
            shown = self._shown.get(image)
            if shown is None:
                return
            if shown.writable:
                try:
                    with translated(self._cluster.backend):
                        await asyncio.to_thread(_synced, shown.path)
                except StorageFailed:
                    await self._hide(image, force=True)
                    raise
            await self._hide(image, force=False)

    async def release_all(self) -> None:
        for image in list(self._shown):
            await self.release(image)

    async def _swept(self) -> None:
        """A process that showed an image and was killed leaves its mount, which answers nobody, and a file below."""
        for path in await asyncio.to_thread(lambda: sorted(self._cluster.folder.glob("by?-*"))):
            async with self._lock(path.name):
                if path.name not in self._shown and names.parsed(path.name) is not None:
                    with contextlib.suppress(BrickyardError, OSError):
                        await call(verbs.rbd_hide, str(path), force=True)
                        await asyncio.to_thread(path.unlink, missing_ok=True)

    def _lock(self, image: str) -> asyncio.Lock:
        return self._locks.setdefault(image, asyncio.Lock())

    async def _show(self, image: str, writable: bool) -> _Shown:
        path, config = self._cluster.folder / image, self._cluster.config
        try:
            # An earlier life may have left its own there.
            await call(verbs.rbd_hide, str(path), force=True)
            with translated(self._cluster.backend):
                await asyncio.to_thread(_place, path)
            who = (config.user, await asyncio.to_thread(self._cluster.key))
            monitors, limit = (await self._cluster.monitors()).places, int(config.deadline_s)
            await call(verbs.rbd_show, str(path), config.pool, who, monitors, writable=writable, deadline_s=limit)
        except ShowFailed as failure:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            raise self._why(str(failure.context.get("reason", ""))) from failure
        except (PrivilegeUnavailable, ProgramMissing, VerbRefused) as failure:
            raise NoWayIn(backend=self._cluster.backend, reason=str(failure).rstrip(".")) from failure
        shown = self._shown[image] = _Shown(path, writable, time.monotonic())
        return shown

    def _why(self, words: str) -> BrickyardError:
        backend = self._cluster.backend
        if any(sign in words for sign in ("Unknown driver", "fuse", "FUSE", "mount")):
            return NoWayIn(backend=backend, reason=words.strip().splitlines()[-1][-300:])
        if "timed out" in words:
            return ClusterHangs(backend=backend, seconds=self._cluster.config.deadline_s)
        return self._cluster.failure("open an image", words, 5)

    async def _hide(self, image: str, *, force: bool) -> None:
        """Take the file away; without `force` only if nobody has it open (ImageBusy)."""
        path = self._shown[image].path
        if not await call(verbs.rbd_hide, str(path), force=force):
            raise ImageBusy(
                name=image, image=image, pool=self._cluster.pool, backend=self._cluster.backend,
                reason="a task of this agent reads or writes it",
            )  # fmt: skip
        self._shown.pop(image, None)
        await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _tidy(self) -> None:
        while self._shown:
            await asyncio.sleep(_LOOK_S)
            for image, shown in list(self._shown.items()):
                if time.monotonic() - shown.used > _IDLE_S and not self._lock(image).locked():
                    with contextlib.suppress(BrickyardError):
                        await self.release(image)
            self._locks = {image: lock for image, lock in self._locks.items() if lock.locked() or image in self._shown}


def _synced(path: Path) -> None:
    """A file below, where nothing is shown any more, is none: its bytes never reached the cluster. OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(fd).st_dev == path.parent.stat().st_dev:
            raise OSError("the process that showed it has ended")
        os.fsync(fd)
    finally:
        os.close(fd)


def _lives(path: Path) -> bool:
    """Whether the file is one that is shown, and somebody answers."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False


def _place(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
