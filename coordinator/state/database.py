"""The one way to the database: `await db.read(fn)` and `await db.write(fn)`, each one explicit transaction.

`fn` takes a SQLAlchemy `Connection` and is plain synchronous code; it runs in a thread, never on the event loop.
SQLite (WAL, full sync) has one writer thread and a few readers; a write begins IMMEDIATE, so that what it reads
can not change before it commits. `fn` may run again (after a serialisation failure, or when a neighbour in its
transaction broke it): it must have no other effect.
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
from coordinator.state.writer import Writer

T = TypeVar("T")
_READERS = 4


class Database:
    """Owns the engine and its threads. Open with `Database.sqlite(path)`; close with `close()`."""

    def __init__(self, engine: Engine, *, lock_fd: int | None = None) -> None:
        self.engine = engine
        self._lock_fd = lock_fd
        self._writer = Writer(self)
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
        return cls(engine, lock_fd=lock_fd)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` against one consistent snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, fn)

    async def write(self, fn: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run `fn` in a write transaction: on disk when this returns, nothing of it when it raises.

        Calls that wait for the disk together share one transaction, each in a savepoint; a `patient` one lets others
        go first.
        """
        return await self._writer.write(fn, patient=patient)

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

    def write_together(self, fns: list[Callable[[Connection], Any]]) -> list[tuple[Any, Exception | None]]:
        """Run all in one transaction; each one's result, or the error that undid it alone. Raises when none is kept."""
        with _told(), self.engine.connect() as conn:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                outcomes = [_apart(conn, fn) for fn in fns]
                conn.exec_driver_sql("COMMIT")
            except BaseException:
                _roll_back(conn)
                raise
        return outcomes

    def close(self) -> None:
        """Wait for running calls, then let go of file and lock."""
        self._writer.close()
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


def _apart(conn: Connection, fn: Callable[[Connection], Any]) -> tuple[Any, Exception | None]:
    """Run `fn` in a savepoint. Raises only when its failure ended the whole transaction."""
    conn.exec_driver_sql("SAVEPOINT apart")
    failure: Exception | None = None
    value = None
    try:
        with _told():
            value = fn(conn)
    except Exception as error:
        if not _in_transaction(conn):
            raise
        failure = error
        conn.exec_driver_sql("ROLLBACK TO apart")
    conn.exec_driver_sql("RELEASE apart")
    return value, failure


def _in_transaction(conn: Connection) -> bool:
    """SQLite ends the transaction by itself on some failures."""
    return bool(getattr(conn.connection.dbapi_connection, "in_transaction", True))


def _roll_back(conn: Connection) -> None:
    """A second end of a transaction would hide what happened."""
    if _in_transaction(conn):
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
