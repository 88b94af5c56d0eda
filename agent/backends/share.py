"""The back ends `nfs` and `smb`: the file back end on a share that the operator has mounted.

Before each call the kernel's table of mounts must name that very share at that place, and the opened folders must lie
in it: nothing is ever written into the empty folder below. Calls run in threads of the share's own, with a deadline;
while one that is late has not come back no other begins, so that it can not meet its own repetition. A server that
hangs so costs its own back end alone. The agent does not mount: that would need far more rights than it has, and the
host's own mount unit knows order, network and credentials already.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from agent.backends.abilities import Foreign
from agent.backends.base import CloneSource, Held, PoolState, Trouble, Work
from agent.backends.config import ShareConfig
from agent.backends.errors import NotMounted, ShareHangs
from agent.backends.file import FileBackend
from agent.copying.throttle import Throttle
from agent.host.mounts import mount_of

_TYPES = {"nfs": frozenset({"nfs", "nfs4"}), "smb": frozenset({"cifs", "smb3"})}
_THREADS = 4
_CLOSE_S = 2.0


def mounted(backend: str, driver: str, path: Path, share: str) -> int:
    """The device number of the share's mount at that place. NotMounted when it is not there, or not writable."""
    found = mount_of(path)
    fits = found is not None and found.type in _TYPES[driver] and found.source.rstrip("/") == share.rstrip("/")
    if found is None or not fits or found.read_only:
        there = f"{found.source} ({found.type}{', read-only' if found.read_only else ''})" if found else "nothing"
        raise NotMounted(backend=backend, path=str(path), share=share, there=there)
    return found.device


class Lane:
    """Some threads for calls that may hang. `run` gives up after a deadline; the thread does not, and is waited for."""

    def __init__(self, name: str, deadline_s: float) -> None:
        self._name, self._deadline_s = name, deadline_s
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._late: set[asyncio.Future[Any]] = set()
        self._started = 0

    async def run(self, blocking: Callable[[], Any]) -> Any:
        """ShareHangs when it does not end in time, or an earlier one has not yet."""
        if self._late:
            raise ShareHangs(backend=self._name, seconds=self._deadline_s)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.put(lambda: _answered(loop, answer, blocking))
        if self._started < _THREADS:
            self._started += 1
            # A daemon: one that hangs in the kernel must not keep the agent from ending.
            threading.Thread(target=self._work, name=f"share-{self._name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.shield(answer)
        except TimeoutError:
            if answer.done():
                return answer.result()
            self._late.add(answer)
            answer.add_done_callback(self._came_back)
            raise ShareHangs(backend=self._name, seconds=self._deadline_s) from None

    def _came_back(self, answer: asyncio.Future[Any]) -> None:
        self._late.discard(answer)
        answer.exception()

    def _work(self) -> None:
        while True:
            self._waiting.get()()


def _answered(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any], blocking: Callable[[], Any]) -> None:
    value, failure = None, None
    try:
        value = blocking()
    except BaseException as error:  # noqa: BLE001  whatever it is belongs to who waits
        failure = error

    def deliver() -> None:
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(value)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(deliver)


class ShareBackend:
    """See `agent.backends.base.Backend`. Opening it touches nothing: a share that is away may come back."""

    def __init__(self, name: str, config: ShareConfig) -> None:
        self._name, self._config = name, config
        self.budget = Throttle(config.rate_limit)
        self._lane = Lane(name, config.deadline_s)
        self._files: FileBackend | None = None
        self._opening = asyncio.Lock()
        self._trouble: Trouble | None = None

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        """Closing a file of a server that hangs may hang."""
        if self._files is not None:
            closing = threading.Thread(target=self._files.close, daemon=True)
            closing.start()
            closing.join(_CLOSE_S)

    async def pools(self) -> tuple[PoolState, ...]:
        return tuple(replace(pool, driver=self._config.driver) for pool in await (await self._share()).pools())

    async def create(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        await (await self._share()).create(volume_id, device_bytes, work)

    async def prepare(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        return await (await self._share()).prepare(volume_id, device_bytes, work)

    async def prepared(self, volume_id: str) -> int | None:
        return await (await self._share()).prepared(volume_id)

    async def publish(self, volume_id: str) -> None:
        await (await self._share()).publish(volume_id)

    async def discard(self, volume_id: str) -> None:
        await (await self._share()).discard(volume_id)

    async def clone(self, volume_id: str, device_bytes: int, source: CloneSource, work: Work | None = None) -> None:
        await (await self._share()).clone(volume_id, device_bytes, source, work)

    async def extend(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        await (await self._share()).extend(volume_id, device_bytes, work)

    async def delete(self, volume_id: str, work: Work | None = None) -> None:
        await (await self._share()).delete(volume_id, work)

    async def snapshot(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        return await (await self._share()).snapshot(volume_id, snapshot_id, work)

    async def delete_snapshot(self, snapshot_id: str, work: Work | None = None) -> None:
        await (await self._share()).delete_snapshot(snapshot_id, work)

    async def revert(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        return await (await self._share()).revert(volume_id, snapshot_id, work)

    async def prepare_anew(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        return await (await self._share()).prepare_anew(volume_id, device_bytes, work)

    async def replace(self, volume_id: str) -> None:
        await (await self._share()).replace(volume_id)

    async def foreign(self) -> list[Foreign]:
        return await (await self._share()).foreign()

    async def adopt(self, kind: Literal["volume", "snapshot"], new_id: str, name: str, device_bytes: int) -> None:
        await (await self._share()).adopt(kind, new_id, name, device_bytes)

    async def release(
        self, kind: Literal["volume", "snapshot"], old_id: str, source: str = "", *, name: str = ""
    ) -> str:
        return await (await self._share()).release(kind, old_id, source, name=name)

    async def size(self, volume_id: str) -> int | None:
        return await (await self._share()).size(volume_id)

    async def path(self, volume_id: str) -> Path:
        return await (await self._share()).path(volume_id)

    async def source_path(self, source: CloneSource) -> Path:
        return await (await self._share()).source_path(source)

    async def holders(self, volume_id: str, *, writers: bool) -> list[str]:
        return await (await self._share()).holders(volume_id, writers=writers)

    async def inventory(self) -> list[Held]:
        return await (await self._share()).inventory()

    async def issues(self) -> list[Trouble]:
        try:
            await self._share()
        except (NotMounted, ShareHangs) as error:
            since = self._trouble.since if self._trouble is not None else time.time()
            self._trouble = Trouble(error.code, str(error), error.remedy, since)
            return [self._trouble]
        self._trouble = None
        return []

    async def _share(self) -> FileBackend:
        """The folders on the share, opened anew when another mount has taken its place. NotMounted, ShareHangs."""
        async with self._opening:
            files: FileBackend = await self._lane.run(self._opened)
            return files

    def _opened(self) -> FileBackend:
        device = self._mounted()
        files = self._files
        if files is not None and files.device() == device:
            return files
        made = FileBackend(self._name, self._config, run=self._verified)
        if made.device() != device:
            made.close()
            raise NotMounted(backend=self._name, path=str(self._config.path), share=self._config.share, there="a link")
        # Here, not by the caller: it may have given up by now, and the next one goes on with what was opened.
        made.budget = self.budget
        self._files = made
        if files is not None:
            files.close()
        return made

    async def _verified(self, blocking: Callable[[], Any]) -> Any:
        """How the file back end runs what blocks here."""

        def inside() -> Any:
            files = self._files
            if files is not None and files.device() != self._mounted():
                raise NotMounted(
                    backend=self._name, path=str(self._config.path), share=self._config.share, there="another mount"
                )
            return blocking()

        return await self._lane.run(inside)

    def _mounted(self) -> int:
        """The device number of the share's mount. NotMounted when something else is at that place, or nothing."""
        return mounted(self._name, self._config.driver, self._config.path, self._config.share)
