"""A savepoint without the bookkeeping of nested transactions, which costs more than the statements inside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from coordinator.state.together import mark, undone


@contextmanager
def savepoint(conn: Connection, name: str = "step") -> Iterator[None]:
    """Undo what was written inside when it raises. Not to be nested under the same name."""
    due = mark(conn)
    conn.exec_driver_sql(f"SAVEPOINT {name}")
    try:
        yield
    except BaseException:
        if not conn.invalidated and getattr(conn.connection.dbapi_connection, "in_transaction", True):
            conn.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {name}")
            conn.exec_driver_sql(f"RELEASE SAVEPOINT {name}")
            undone(conn, due)
        raise
    conn.exec_driver_sql(f"RELEASE SAVEPOINT {name}")
