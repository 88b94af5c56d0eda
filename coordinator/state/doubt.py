"""Deciding what became of a commit whose answer was lost: by the row that it was to bring, once nobody works on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sqlalchemy import Connection, text

from coordinator.state.database import Database
from coordinator.state.errors import CommitInDoubt, DatabaseUnavailable

_PATIENCE_S = 20.0
_AGAIN_S = 0.2
_AT_WORK = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND datname = current_database()")


async def was_kept(db: Database, doubt: CommitInDoubt, there: Callable[[Connection], bool]) -> bool:
    """Whether the transaction was committed, by `there`; raises the doubt again when the server does not come back.

    The server's process that was to commit may still be at it after its connection broke: it is waited for first.
    """
    deadline = time.monotonic() + _PATIENCE_S

    def look(conn: Connection) -> bool | None:
        if doubt.backend is not None and conn.execute(_AT_WORK, {"pid": doubt.backend}).scalar_one():
            return None
        return there(conn)

    while time.monotonic() < deadline:
        try:
            # In a transaction of its own each time: one that looks sees nothing that is committed later.
            if await db.read(lambda conn: look(conn) is None):
                kept = None
            else:
                kept = await db.read(there)
        except DatabaseUnavailable:
            kept = None
        if kept is not None:
            return kept
        await asyncio.sleep(_AGAIN_S)
    raise doubt
