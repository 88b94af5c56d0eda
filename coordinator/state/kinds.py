"""What differs between the databases: how a transaction begins, what a failure means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError

_SERIALIZATION, _DEADLOCK, _LOCK_NOT_AVAILABLE, _UNIQUE = "40001", "40P01", "55P03", "23505"
_READS = "brickyard_only_reads"
_AGAIN = frozenset({_SERIALIZATION, _DEADLOCK, _LOCK_NOT_AVAILABLE})
# Classes of SQLSTATE that say that the server is away, full or stopping; nothing was kept.
_AWAY = ("08", "53", "57", "58")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of database. `alone`: only one process can have it, and one of its threads writes."""

    name: str
    alone: bool
    begin_read: str
    begin_write: str
    begin_together: str
    hurry: str | None
    """How several calls begin that share a transaction, and what is said after the first of them: who holds rows for
    others waits for nobody for long, and the one that has to is done alone."""
    in_transaction: Callable[[Any], bool]
    unavailable: Callable[[DBAPIError], bool]
    turn: Callable[[Connection, bool], None]
    """Makes a connection one that only reads, or one that may write, before its transaction begins."""

    def backend(self, conn: Connection) -> int | None:
        """The process of the server that works for this connection; None where there is no server."""
        info = getattr(conn.connection.dbapi_connection, "info", None)
        return None if info is None else int(info.backend_pid)

    def is_open(self, conn: Connection) -> bool:
        """Whether a transaction is under way (some failures end it by themselves)."""
        return not conn.invalidated and self.in_transaction(conn.connection.dbapi_connection)


def _sqlite_unavailable(error: DBAPIError) -> bool:
    began = not str(error.statement).startswith("BEGIN")
    if began and getattr(error.orig, "sqlite_errorname", "") == "SQLITE_READONLY":
        return False  # a write inside a read, which is a defect; a disk that is read-only lets no write begin
    return isinstance(error, OperationalError) and not str(error.orig).startswith("no such ")


def _sqlite_turn(conn: Connection, reads: bool) -> None:
    """SQLite knows no transaction that only reads: what is written in one would be gone without a word."""
    if conn.info.get(_READS, False) != reads:
        conn.exec_driver_sql(f"PRAGMA query_only={int(reads)}")
        conn.info[_READS] = reads


def _by_its_begin(_conn: Connection, _reads: bool) -> None:
    """PostgreSQL's BEGIN says it."""


def _postgresql_open(connection: Any) -> bool:
    return not connection.closed and int(connection.info.transaction_status) != 0


def _postgresql_unavailable(error: DBAPIError) -> bool:
    state = sqlstate(error)
    if state is None or error.connection_invalidated:
        # Also when the server itself ended a session that stood still: its state then says nothing of the statement.
        return error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))
    return state.startswith(_AWAY) or state in _AGAIN


def sqlstate(error: DBAPIError) -> str | None:
    """The five characters by which PostgreSQL tells what failed; None when the server did not say."""
    found = getattr(error.orig, "sqlstate", None)
    return found if found is None else str(found)


def collided(error: DBAPIError) -> bool:
    """Two writers got in each other's way; the same again will do."""
    return sqlstate(error) in _AGAIN


def came_second(error: DBAPIError) -> bool:
    """Another writer has inserted the row that was missing a moment ago: looking again finds it."""
    return sqlstate(error) == _UNIQUE


def not_storable(error: DBAPIError) -> bool:
    """A value does not fit its column: PostgreSQL keeps to lengths and ranges, and knows no NUL in a text."""
    return isinstance(error, DataError)


SQLITE = Kind(
    name="SQLite",
    alone=True,
    begin_read="BEGIN",
    begin_write="BEGIN IMMEDIATE",
    begin_together="BEGIN IMMEDIATE",
    hurry=None,
    in_transaction=lambda connection: bool(getattr(connection, "in_transaction", True)),
    unavailable=_sqlite_unavailable,
    turn=_sqlite_turn,
)
POSTGRESQL = Kind(
    name="PostgreSQL",
    alone=False,
    begin_read="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    begin_write="BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
    begin_together="BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '2s'",
    hurry="SET LOCAL lock_timeout = '100ms'",
    in_transaction=_postgresql_open,
    unavailable=_postgresql_unavailable,
    turn=_by_its_begin,
)
