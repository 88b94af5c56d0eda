"""The agent's database behind one thread: whatever arrives together is committed together.

`write(fn)` runs `fn(db)` in a transaction with full sync and returns what it returned. Calls that queue up while
the disk syncs share the next transaction, so a burst of jobs costs a few syncs instead of one each. A function
may run twice (when a neighbour in its transaction failed), so it must only touch the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlite_utils import Database

from agent.base.errors import BrickyardError
from agent.jobs.errors import JournalNewer, JournalUnavailable
from agent.jobs.schema import migrations

T = TypeVar("T")
_MAX_BATCH = 256


@dataclass(slots=True, eq=False)
class _Call(Generic[T]):
    fn: Callable[[Database], T]
    future: asyncio.Future[T]
    value: Any = None
    error: BaseException | None = None


class Journal:
    """`await open()` first; then `write` and `read` from the event loop; `await close()` at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self._queue: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Open or make the database and bring its tables to this release. JournalUnavailable, JournalNewer."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(opened,), name="journal", daemon=True)
        self._thread.start()
        await opened

    async def close(self) -> None:
        """Finish what is queued and close; a second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    async def write(self, fn: Callable[[Database], T]) -> T:
        """Run `fn(db)` in a transaction; it is on disk when this returns. JournalUnavailable when it is not."""
        if self._loop is None or self._thread is None:
            raise JournalUnavailable(path=str(self.path), reason="it is closed")
        call: _Call[T] = _Call(fn, self._loop.create_future())
        self._queue.put(call)
        return await call.future

    async def read(self, fn: Callable[[Database], T]) -> T:
        """Run `fn(db)`, in order with the writes (it sees all that were asked for before)."""
        return await self.write(fn)

    def _work(self, opened: asyncio.Future[None]) -> None:
        assert self._loop is not None
        try:
            db = self._connect()
        except BaseException as error:  # noqa: BLE001
            self._loop.call_soon_threadsafe(_settle, opened, None, self._translated(error))
            return
        self._loop.call_soon_threadsafe(_settle, opened, None, None)
        with contextlib.closing(db):
            while self._serve(db):
                continue

    def _serve(self, db: Database) -> bool:
        """One batch; False when it held the word to close."""
        batch: list[_Call[Any]] = []
        going = True
        item = self._queue.get()
        while True:
            if item is None:
                going = False
                break
            batch.append(item)
            if len(batch) >= _MAX_BATCH:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        if batch:
            self._run(db, batch)
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # the loop may be gone when the process ends in a hurry
                self._loop.call_soon_threadsafe(_deliver, batch)
        return going

    def _run(self, db: Database, batch: list[_Call[Any]]) -> None:
        try:
            self._transaction(db, batch)
        except BaseException as error:  # noqa: BLE001
            if len(batch) == 1:
                batch[0].error = self._translated(error)
                return
            for call in batch:
                self._run(db, [call])

    def _transaction(self, db: Database, batch: list[_Call[Any]]) -> None:
        before = db.conn.total_changes
        with db.atomic():
            for call in batch:
                call.value = call.fn(db)
        self.commits += db.conn.total_changes != before

    def _connect(self) -> Database:
        connection = sqlite3.connect(self.path, timeout=10.0)
        self.path.chmod(0o600)
        db = Database(connection, execute_plugins=False, strict=True)
        db.enable_wal()
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA cache_size=-1024")
        unknown = {row.name for row in migrations.applied(db)} - {row.name for row in migrations._migrations}
        if unknown:
            raise JournalNewer(path=str(self.path), unknown=", ".join(sorted(unknown)))
        migrations.apply(db)
        return db

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, BrickyardError) or not isinstance(error, (sqlite3.Error, OSError)):
            return error
        failure = JournalUnavailable(path=str(self.path), reason=str(error))
        failure.__cause__ = error
        return failure


def _deliver(batch: list[_Call[Any]]) -> None:
    for call in batch:
        _settle(call.future, call.value, call.error)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():  # the caller was cancelled; the write stands
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
