"""The one way to the database: `await db.read(fn)` and `await db.write(fn)`, each one explicit transaction.

`fn` takes a SQLAlchemy `Connection` and is plain synchronous code; it runs in a thread, never on the event loop.
SQLite (WAL, full sync) has one writer thread and a few readers; a write begins IMMEDIATE, so that what it reads
can not change before it commits. PostgreSQL has a crew of writers; what a write reads through the repositories is held
until it commits (`coordinator.state.locks`). `fn` may run again (after a collision with another writer, or when a
neighbour in its transaction broke it): it must have no other effect.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from coordinator.state.bell import Bell
from coordinator.state.crew import Crew
from coordinator.state.errors import CommitInDoubt, DatabaseUnavailable, NotStorable, SessionLost
from coordinator.state.glance import Glances
from coordinator.state.kinds import SQLITE, Kind, came_second, collided, not_storable
from coordinator.state.locks import BESIDE_OTHERS
from coordinator.state.news import CACHED, EVENTS, RINGS, News, Silence
from coordinator.state.together import TOGETHER, HopeLost, Need, Shared, mark, undone
from coordinator.state.writer import Writer

T = TypeVar("T")
_READERS, _GLANCING = 4, 2
_TRIES, _SECOND_LOOKS, _LOST = 12, 3, 3
_LONGEST_PAUSE_S = 0.5


class Database:
    """Owns the engine and its threads. Open with `Database.sqlite(path)` or `Database.postgresql(...)`; `close()`."""

    def __init__(
        self, engine: Engine, *, kind: Kind = SQLITE, lock_fd: int | None = None, writers: int = 1,
        news: News | None = None
    ) -> None:  # fmt: skip
        self.engine = engine
        self.kind = kind
        self.news: News = news or Silence()
        self.new_events, self.new_in_cache = Bell(), Bell()
        self._bells = {EVENTS: self.new_events, CACHED: self.new_in_cache}
        self.news.follow(EVENTS, lambda _: self.new_events.ring())
        self.news.follow(CACHED, lambda _: self.new_in_cache.ring())
        self._lock_fd = lock_fd
        self._writer: Writer | Crew = Writer(self) if kind.alone else Crew(self, writers)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="db-read")
        # Threads share one interpreter: a second one helps only where each waits for a server.
        self._glances = Glances(self, threads=1 if kind.alone else _GLANCING, together=32 if kind.alone else 8)
        self._closing = threading.Event()

    @classmethod
    def sqlite(cls, path: Path) -> Database:
        """Open (or make) the database file and hold its lock; `DatabaseBusy` names the process that has it."""
        from coordinator.state import sqlite

        lock_fd = sqlite.hold(path.with_name(path.name + ".lock"))
        return cls(sqlite.engine(path, _READERS + 2), lock_fd=lock_fd)

    @classmethod
    def postgresql(cls, url: str, *, password: str | None = None, writers: int = 8) -> Database:
        """Connect to a PostgreSQL database; raises what keeps it from being used. Any number of processes may."""
        from coordinator.state import postgresql

        return postgresql.opened(cls, url, password=password, writers=writers, readers=_READERS + _GLANCING)

    @property
    def alone(self) -> bool:
        """Whether no other process can have this database."""
        return self.kind.alone

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` against one consistent snapshot. What reads only a few rows by key is cheaper by `glance`."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, fn)

    async def glance(self, fn: Callable[[Connection], T]) -> T:
        """Like `read`, for what ends in a millisecond: those that wait at the same time share thread and snapshot."""
        return await self._glances.read(fn)

    async def write(
        self, fn: Callable[[Connection], T], *, patient: bool = False, together: str | None = None,
        need: Need | None = None
    ) -> T:  # fmt: skip
        """Run `fn` in a write transaction: on disk when this returns, nothing of it when it raises.

        On SQLite calls that wait for the disk together share one transaction, each in a savepoint; on PostgreSQL those
        that say the same `together`: they hold rows of their own, and what all of them hold (see
        `coordinator.state.together` for what they may read, and for `need`). A `patient` one lets others go first.
        """
        return await self._writer.write(fn, patient=patient, together=together, need=need)

    def read_now(self, fn: Callable[[Connection], T]) -> T:
        """The blocking form of `read`, for commands and start-up."""
        for _ in range(_LOST - 1):
            with suppress(SessionLost):
                return self._read_once(fn)
        return self._read_once(fn)

    def _read_once(self, fn: Callable[[Connection], T]) -> T:
        with self._told(), self._begun(self.kind.begin_read, reads=True) as conn:
            try:
                return fn(conn)
            finally:
                self._roll_back(conn)

    def read_together(self, fns: list[Callable[[Connection], Any]]) -> list[tuple[Any, Exception | None]]:
        """Run all against one snapshot; each one's result or error. Raises when the database can not be read."""
        outcomes: list[tuple[Any, Exception | None]] = []
        lost = 0
        while len(outcomes) < len(fns):
            with self._told(), self._begun(self.kind.begin_read, reads=True) as conn:
                try:
                    for fn in fns[len(outcomes) :]:
                        try:
                            with self._told():
                                outcomes.append((fn(conn), None))
                        except Exception as error:  # noqa: BLE001 - it belongs to its caller
                            lost += isinstance(error, SessionLost)
                            if isinstance(error, SessionLost) and lost < _LOST:
                                break
                            outcomes.append((None, error))
                            if isinstance(error, (DBAPIError, DatabaseUnavailable, NotStorable)):
                                break  # this ended the transaction for all
                finally:
                    self._roll_back(conn)
        return outcomes

    def write_now(self, fn: Callable[[Connection], T]) -> T:
        """The blocking form of `write`."""
        if self.kind.alone:
            return self._write_once(fn)
        second_looks = lost = 0
        for attempt in range(1, _TRIES):
            try:
                return self._write_once(fn)
            except SessionLost:
                lost += 1
                if lost == _LOST:
                    raise
            except DBAPIError as error:
                second_looks += came_second(error)
                if not (collided(error) or (came_second(error) and second_looks <= _SECOND_LOOKS)):
                    raise
            # Those who collided must not meet again; a database that closes ends the wait.
            self._closing.wait(min(_LONGEST_PAUSE_S, random.random() * 0.005 * 2**attempt))  # noqa: S311
        try:
            return self._write_once(fn)
        except DBAPIError as error:
            if not collided(error):
                raise
            raise DatabaseUnavailable(reason=_reason(error)) from error

    def _write_once(self, fn: Callable[[Connection], T]) -> T:
        with self._told(), self._begun(self.kind.begin_write) as conn:
            if not self.kind.alone:
                conn.execution_options(**{BESIDE_OTHERS: True})
            try:
                conn.info.pop(RINGS, None)  # of one that failed
                result = fn(conn)
                self._commit(conn)
                self._committed(conn)
            except BaseException:
                self._roll_back(conn)
                raise
            return result

    def write_together(
        self, fns: list[Callable[[Connection], Any]], needs: list[Need]
    ) -> list[tuple[Any, Exception | None]]:
        """Run all in one transaction; each one's result, or the error that undid it alone. Raises when none is kept.

        On PostgreSQL first in the hope that none fails: a savepoint for each costs a tenth of all.
        """
        if not self.kind.alone:
            try:
                return self._written_together(fns, needs, hopeful=True)
            except (CommitInDoubt, HopeLost) as error:
                if isinstance(error, CommitInDoubt):
                    raise
            except Exception as error:  # noqa: BLE001 - of several it comes again, with its savepoint
                if len(fns) == 1:
                    return [(None, error)]
        return self._written_together(fns)

    def _written_together(
        self, fns: list[Callable[[Connection], Any]], needs: Iterable[Need] = (), *, hopeful: bool = False
    ) -> list[tuple[Any, Exception | None]]:
        with self._told(), self._begun(self.kind.begin_together) as conn:
            sharing = Shared(hopeful)
            if not self.kind.alone:
                conn.execution_options(**{BESIDE_OTHERS: True, TOGETHER: sharing})
            outcomes: list[tuple[Any, Exception | None]] = []
            try:
                conn.info.pop(RINGS, None)
                sharing.begin(conn, needs)
                for fn in fns:
                    if len(outcomes) == 1 and self.kind.hurry:
                        conn.exec_driver_sql(self.kind.hurry)
                    outcomes.append((fn(conn), None) if hopeful else self._apart(conn, fn))
                sharing.finish(conn)
                self._commit(conn)
                self._committed(conn)
            except BaseException as error:
                if isinstance(error, CommitInDoubt):
                    error.failed = frozenset(at for at, (_, own) in enumerate(outcomes) if own is not None)
                self._roll_back(conn)
                raise
        return outcomes

    def close(self) -> None:
        """Wait for running calls, then let go of file and lock."""
        self._closing.set()
        self.news.close()
        self._writer.close()
        self._readers.shutdown()
        self._glances.close()
        self.engine.dispose()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @contextmanager
    def _begun(self, begin: str, *, reads: bool = False) -> Iterator[Connection]:
        with self.engine.connect() as conn:
            self.kind.turn(conn, reads)
            try:
                conn.exec_driver_sql(begin)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                # The server was started anew since this connection was last used; nothing was asked of it yet. The
                # place in the pool is kept: if all threads asked for a second one at once, some would get none.
                conn.rollback()
                conn.exec_driver_sql(begin)
            yield conn

    def _commit(self, conn: Connection) -> None:
        backend = self.kind.backend(conn)
        try:
            conn.exec_driver_sql("COMMIT")
        except DBAPIError as error:
            if self.kind.alone or not error.connection_invalidated:
                raise
            doubt = CommitInDoubt(reason=_reason(error))
            doubt.backend = backend
            raise doubt from error

    def _committed(self, conn: Connection) -> None:
        for topic in conn.info.pop(RINGS, ()):
            self._bells[topic].ring()
            self.news.tell(topic)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A full disk, a locked file or a server that is away is told as such, and is worth another try."""
        try:
            yield
        except DBAPIError as error:
            if not_storable(error):
                raise NotStorable(reason=_reason(error)) from error
            if error.connection_invalidated and not self.kind.alone:
                raise SessionLost(reason=_reason(error)) from error
            if collided(error) or not self.kind.unavailable(error):
                raise
            raise DatabaseUnavailable(reason=_reason(error)) from error

    def _apart(self, conn: Connection, fn: Callable[[Connection], Any]) -> tuple[Any, Exception | None]:
        """Run `fn` in a savepoint. Raises only when its failure ended the whole transaction."""
        due = mark(conn)
        conn.exec_driver_sql("SAVEPOINT apart")
        failure: Exception | None = None
        value = None
        try:
            with self._told():
                value = fn(conn)
        except Exception as error:
            if not self.kind.is_open(conn):
                raise
            failure = error
            conn.exec_driver_sql("ROLLBACK TO apart")
            undone(conn, due)
        conn.exec_driver_sql("RELEASE apart")
        return value, failure

    def _roll_back(self, conn: Connection) -> None:
        """A second end of a transaction would hide what happened, and so would a connection that is gone."""
        if not self.kind.is_open(conn):
            return
        try:
            conn.exec_driver_sql("ROLLBACK")
        except DBAPIError as error:
            if self.kind.alone or not error.connection_invalidated:
                raise


def _reason(error: DBAPIError) -> str:
    """The first line of what the database said: more may hold values of rows."""
    return (str(error.orig).strip().splitlines() or ["it did not say why"])[0]
