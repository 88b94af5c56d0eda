"""Opening the embedded database: one file, its lock, and how each connection is prepared."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from coordinator.state.errors import DatabaseBusy


def engine(path: Path, connections: int) -> Engine:
    """An engine on the file, which is made when it is used first."""
    made = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=2,
        connect_args={"timeout": 10, "check_same_thread": False, "isolation_level": None},
    )
    event.listen(made, "connect", _prepare)
    return made


def hold(path: Path) -> int:
    """Take the lock file, and return the descriptor that holds it; raises DatabaseBusy naming who has it."""
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


def _prepare(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-2048"):
        connection.execute(f"PRAGMA {pragma}").close()
