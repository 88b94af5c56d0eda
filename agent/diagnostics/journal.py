"""The agent's journal, read only: works beside a running agent and without one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from agent.base.errors import NotFound
from agent.jobs.errors import JournalUnavailable
from agent.wire.jobs import TERMINAL

_JOBS = (
    "SELECT key, operation, step, attempt, epoch, kind, state, progress, args, error, request_id, cancel_requested, "
    "created_at, updated_at FROM jobs ORDER BY created_at DESC, key LIMIT ?"
)


class NoJournal(NotFound):
    code = "agent.no-journal"
    sentence = "There is no journal {path}."
    hint = "Start the agent once, or name its configuration with --config."


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The journal, without any right to change it; raises `NoJournal`, `JournalUnavailable`."""
    if not path.exists():
        raise NoJournal(path=str(path))
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            db.row_factory = sqlite3.Row
            yield db
    except sqlite3.Error as error:
        raise JournalUnavailable(path=str(path), reason=str(error)) from error


def jobs(path: Path, *, ended: bool = True, limit: int = 1000) -> list[dict[str, Any]]:
    """Jobs, the newest first; `ended` False leaves out those that have ended. JSON columns come as objects."""
    with opened(path) as db:
        rows = [dict(row) for row in db.execute(_JOBS, (limit,))]
    for row in rows:
        for name in ("progress", "args", "error"):
            row[name] = json.loads(row[name]) if row[name] else None
        row["cancel_requested"] = bool(row["cancel_requested"])
    return [row for row in rows if ended or row["state"] not in TERMINAL]


def attachments(path: Path) -> list[dict[str, Any]]:
    """What this host was told to have attached."""
    with opened(path) as db:
        rows = [dict(row) for row in db.execute("SELECT * FROM attachments ORDER BY created_at, attachment_id")]
    for row in rows:
        row["identifiers"] = json.loads(row["identifiers"]) if row["identifiers"] else {}
        row["encryption"] = json.loads(row["encryption"]) if row["encryption"] else None
        row["wanted"], row["raw"] = bool(row["wanted"]), bool(row["raw"])
    return rows


def whole(path: Path) -> list[str]:
    """What SQLite finds wrong; empty when nothing is."""
    with opened(path) as db:
        found = [str(row[0]) for row in db.execute("PRAGMA quick_check(10)")]
    return [] if found == ["ok"] else found
