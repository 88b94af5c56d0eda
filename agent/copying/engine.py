"""The one copy engine. Callers: back ends, images, backups. It knows nothing of volumes, jobs or the wire.

Only ranges that hold data are read; whether zeros may be left out is the destination's word. Worker threads move
pieces by direct I/O under one rate limit. A checkpoint is handed out only after the data before it was synced, so
a copy that was killed goes on from there and loses at most what came after it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.copying.errors import CopyCancelled, DestinationSmall, NotShared, SourceShort, translated
from agent.copying.extents import data_bytes, pieces
from agent.copying.files import Side, reflink
from agent.copying.model import (
    ALIGN,
    Checkpoint,
    Content,
    CopyOptions,
    CopyProgress,
    CopyResult,
    Dest,
    Source,
)
from agent.copying.work import Target, Work
from agent.host.run import uninterrupted

_RATE_WINDOW_S = 5.0
_T = TypeVar("_T")


async def copy(  # noqa: PLR0917  all six are always given
    source: Source,
    dest: Dest,
    options: CopyOptions,
    progress: Callable[[CopyProgress], None],
    checkpoint: Checkpoint | None,
    cancel: asyncio.Event,
) -> CopyResult:
    """Copy `source` to `dest`; on return all of it is durable.

    `progress` is called on the event loop, at most five times a second or so and once at the end. Raises
    CopyCancelled when `cancel` is set; DestinationFull, DestinationSmall, SourceShort, NotShared, CopyRefused,
    CopyFailed.
    The destination must exist. A task that is cancelled ends its threads before it goes.
    """
    started = time.monotonic()
    pool = ThreadPoolExecutor(options.workers + 1, thread_name_prefix="copy")
    run = _Run(source, dest, options, checkpoint, pool)
    try:
        await uninterrupted(run.in_pool(run.prepare))
        if not run.reflinked:
            await run.move(progress, cancel)
        await uninterrupted(run.in_pool(run.sync))
        if checkpoint is not None:
            await checkpoint.save(dest.size)
        progress(run.report())
        return CopyResult(
            dest.size, run.moved, run.reflinked, not run.reflinked and run.direct, time.monotonic() - started
        )
    finally:
        await uninterrupted(run.in_pool(run.close))
        pool.shutdown(wait=False)


@dataclass(slots=True)
class _Counts:
    before: int = 0
    total: int = 0


class _Run:
    """One copy. Methods that block run in the pool; `move` is the part on the event loop."""

    def __init__(
        self, source: Source, dest: Dest, options: CopyOptions, checkpoint: Checkpoint | None, pool: ThreadPoolExecutor
    ) -> None:
        self._what, self._where, self._options, self._checkpoint = source, dest, options, checkpoint
        self._loop, self._pool = asyncio.get_running_loop(), pool
        self._source: Side | None = None
        self._content: Content | None = None
        self._dest: Side | None = None
        self._start = 0 if checkpoint is None else checkpoint.start // ALIGN * ALIGN
        self._counts = _Counts()
        self._work: Work | None = None
        self._seen: deque[tuple[float, int]] = deque()
        self.reflinked = False

    async def in_pool(self, call: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(self._pool, call)

    @property
    def moved(self) -> int:
        return 0 if self._work is None else self._work.moved

    @property
    def direct(self) -> bool:
        return self._dest is not None and self._dest.direct

    def prepare(self) -> None:
        """Open both sides, bring the destination to its size, and share the data where that is possible."""
        source, dest = self._open()
        try:
            self._fit(dest)
            if self._may_reflink(source, dest) and reflink(source.plain, dest.plain):
                os.ftruncate(dest.plain, self._where.size)
                self.reflinked = True
            elif self._options.share_only and self._start < self._what.size:
                raise NotShared()
        except OSError as failure:
            raise translated(failure, "destination") from failure
        try:
            content = self._content = source if self._what.inside is None else self._what.inside(source)
            if content.size() < self._what.size:
                raise SourceShort(offset=content.size(), size=self._what.size)
            self._count(content)
        except OSError as failure:
            raise translated(failure, "source") from failure

    def _open(self) -> tuple[Side, Side]:
        direct = self._options.direct
        try:
            self._source = Side(self._what.open, os.O_RDONLY, direct=direct)
        except OSError as failure:
            raise translated(failure, "source") from failure
        try:
            self._dest = Side(self._where.open, os.O_RDWR, direct=direct)
        except OSError as failure:
            raise translated(failure, "destination") from failure
        return self._source, self._dest

    def _fit(self, dest: Side) -> None:
        base = self._where.base
        have, need = dest.size() - base, max(self._where.size, self._what.size)
        if not dest.is_file():
            if have < need:
                raise DestinationSmall(have=have, need=need)
            return
        if self._where.size < self._what.size:
            raise DestinationSmall(have=self._where.size, need=self._what.size)
        if have < self._start:
            # Not the file that the checkpoint speaks of.
            self._start = 0
        # What lies behind the checkpoint is of unknown age; cut off, it reads as zeros again.
        os.ftruncate(dest.plain, base + self._start)
        os.ftruncate(dest.plain, base + self._where.size)

    def _may_reflink(self, source: Side, dest: Side) -> bool:
        wanted = self._options.reflink and self._where.zeros_skippable and self._start == 0
        if self._what.inside is not None or self._where.change is not None or self._where.base:
            return False
        return wanted and source.is_file() and dest.is_file() and source.size() == self._what.size

    def _count(self, source: Content) -> None:
        counts = self._counts
        if not self._where.zeros_skippable:
            counts.before, counts.total = self._start, self._where.size
            return
        counts.before = data_bytes(source, 0, min(self._start, self._what.size))
        counts.total = counts.before + data_bytes(source, self._start, self._what.size)
        if self.reflinked:
            counts.before = counts.total

    async def move(self, progress: Callable[[CopyProgress], None], cancel: asyncio.Event) -> None:
        """Run the workers; tell progress and note checkpoints while they run."""
        wake = asyncio.Event()

        def notify() -> None:
            self._loop.call_soon_threadsafe(wake.set)

        work = self._work = self._new_work(notify)
        size = self._options.piece_size()
        workers = [self._loop.run_in_executor(self._pool, work.run, size) for _ in range(self._options.workers)]
        asking = asyncio.ensure_future(cancel.wait())
        running: set[asyncio.Future[None]] = set(workers)
        saved = self._start
        try:
            while running:
                waking = asyncio.ensure_future(wake.wait())
                events: set[asyncio.Future[Any]] = {*running, asking, waking}
                await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
                wake.clear()
                for worker in [worker for worker in running if worker.done()]:
                    running.discard(worker)
                    worker.result()
                if cancel.is_set():
                    raise CopyCancelled(done=self._counts.before + work.moved, total=self._counts.total)
                progress(self.report())
                saved = await self._note(work, saved)
        finally:
            work.stop.set()
            asking.cancel()
            await uninterrupted(_ended(workers))

    def _new_work(self, notify: Callable[[], None]) -> Work:
        assert self._content is not None
        assert self._dest is not None
        options, skippable = self._options, self._where.zeros_skippable
        plan = pieces(
            self._content, self._start, self._what.size, self._where.size,
            length=options.piece_size(), write_zeros=not skippable,
        )  # fmt: skip
        return Work(
            self._content, Target(self._dest, self._where), plan, options.throttle(), start=self._start,
            tell_bytes=options.checkpoint_every, notify=notify,
        )  # fmt: skip

    async def _note(self, work: Work, saved: int) -> int:
        mark = work.mark()
        if self._checkpoint is None or mark - saved < self._options.checkpoint_every:
            return saved
        await uninterrupted(self.in_pool(self.sync))
        await self._checkpoint.save(mark)
        return mark

    def report(self) -> CopyProgress:
        now, done = time.monotonic(), self._counts.before + self.moved
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _RATE_WINDOW_S:
            self._seen.popleft()
        then, first = self._seen[0]
        rate = (done - first) / (now - then) if now > then else 0.0
        total = max(self._counts.total, done)
        return CopyProgress(self._options.phase, done, total, rate, (total - done) / rate if rate else None)

    def sync(self) -> None:
        assert self._dest is not None
        try:
            os.fdatasync(self._dest.plain)
        except OSError as failure:
            raise translated(failure, "destination") from failure

    def close(self) -> None:
        for side in (self._source, self._dest):
            if side is not None:
                side.close()


async def _ended(workers: list[asyncio.Future[None]]) -> None:
    await asyncio.gather(*workers, return_exceptions=True)
