"""What keeps two writers apart on a database that has several; on SQLite, which has one, nothing is needed.

A write on PostgreSQL sees at each statement what others have committed by then (READ COMMITTED). So that what it read
and decided upon still holds when it commits, it holds the rows that it reads through the repositories, and the names
that stand for what is no row (yet).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, Table, select, text

BESIDE_OTHERS = "brickyard_writes_beside_others"
_NAMED = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


def beside_others(conn: Connection) -> bool:
    """Whether this is a write that others may run beside."""
    return bool(conn.get_execution_options().get(BESIDE_OTHERS))


def held(conn: Connection, query: Select[Any]) -> Select[Any]:
    """`query` such that its rows stay as they are until the caller's write ends; nothing special in a read."""
    return query.with_for_update(key_share=True) if beside_others(conn) else query


class Holding:
    """`held` of a statement that runs often: both forms are put together once."""

    def __init__(self, plain: Select[Any]) -> None:
        self.plain = plain
        self._held = plain.with_for_update(key_share=True)

    def of(self, conn: Connection) -> Select[Any]:
        return self._held if beside_others(conn) else self.plain


def shared(conn: Connection, query: Select[Any]) -> Select[Any]:
    """Like `held`, for rows that many writes refer to at once (a volume type): none of them may change it meanwhile."""
    return query.with_for_update(read=True) if beside_others(conn) else query


def hold(conn: Connection, table: Table, key: str) -> None:
    """Hold the row of this id before a statement whose condition looks at other rows too."""
    if beside_others(conn):
        conn.execute(select(table.c.id).where(table.c.id == key).with_for_update(key_share=True))


def hold_name(conn: Connection, name: str) -> None:
    """Hold what has no row of its own, until the caller's write ends."""
    if beside_others(conn):
        conn.execute(_NAMED, {"name": name})
