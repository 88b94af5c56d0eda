"""The one way to the database: `await db.read(fn)` and `await db.write(fn)`, each one explicit transaction.

`fn` takes a SQLAlchemy `Connection` and is plain synchronous code; it runs in a thread, never on the event loop.
SQLite (WAL, full sync) has one writer thread and a few readers; a write begins IMMEDIATE, so that what it reads
can not change before it commits. `fn` may run again after a serialisation failure: it must have no other effect.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from coordinator.state.errors import DatabaseBusy, DatabaseUnavailable

T = TypeVar("T")
_READERS = 4


class Database:
    """Owns the engine and its threads. Open with `Database.sqlite(path)`; close with `close()`."""

    def __init__(self, engine: Engine, *, writers: int, lock_fd: int | None = None) -> None:
        self.engine = engine
        self._lock_fd = lock_fd
        self._writer = ThreadPoolExecutor(writers, thread_name_prefix="db-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="db-read")

    @classmethod
    def sqlite(cls, path: Path) -> Database:
        """Open (or make) the database file and hold its lock; `DatabaseBusy` names the process that has it."""
        lock_fd = _hold(path.with_name(path.name + ".lock"))
        engine = create_engine(
            f"sqlite:///{path}",
            poolclass=QueuePool,
            pool_size=_READERS + 1,
            max_overflow=2,
            connect_args={"timeout": 10, "check_same_thread": False, "isolation_level": None},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        return cls(engine, writers=1, lock_fd=lock_fd)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` against one consistent snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, fn)

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in one write transaction: committed when it returns, rolled back when it raises."""
        task = asyncio.get_running_loop().run_in_executor(self._writer, self.write_now, fn)
        return await asyncio.shield(task)

    def read_now(self, fn: Callable[[Connection], T]) -> T:
        """The blocking form of `read`, for commands and start-up."""
        with _told(), self.engine.connect() as conn:
            conn.exec_driver_sql("BEGIN")
            try:
                return fn(conn)
            finally:
                _roll_back(conn)

    def write_now(self, fn: Callable[[Connection], T]) -> T:
        """The blocking form of `write`."""
        with _told(), self.engine.connect() as conn:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                result = fn(conn)
                conn.exec_driver_sql("COMMIT")
            except BaseException:
                _roll_back(conn)
                raise
            return result

    def close(self) -> None:
        """Wait for running calls, then let go of file and lock."""
        self._writer.shutdown()
        self._readers.shutdown()
        self.engine.dispose()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


@contextmanager
def _told() -> Iterator[None]:
    """A full disk, a locked file or a server that is away is told as such, and is worth another try."""
    try:
        yield
    except OperationalError as error:
        reason = str(error.orig)
        if reason.startswith("no such "):
            raise
        raise DatabaseUnavailable(reason=reason) from error


def _roll_back(conn: Connection) -> None:
    """SQLite ends the transaction by itself on some failures; a second end would hide what happened."""
    if getattr(conn.connection.dbapi_connection, "in_transaction", True):
        conn.exec_driver_sql("ROLLBACK")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-2048"):
        connection.execute(f"PRAGMA {pragma}").close()


def _hold(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise DatabaseBusy(path=str(path.with_suffix("")), pid=pid or "unknown") from None
    os.truncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
