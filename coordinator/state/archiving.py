"""`db archive`: rows of what was deleted go into the table `archive` with all their parts, so many at a time.

Each call is one transaction: killed in between, nothing is lost and nothing is there twice.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from agent.base.faults import declare, fault_point
from coordinator.state.purge import Rule, gone_for_good, referenced
from coordinator.state.tables.archive import archive
from coordinator.state.tables.columns import utcnow

BATCH = 500
declare("archive.copied")


def move(
    conn: Connection, before: datetime.datetime, most: int | None = None, done: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Move some rows of each table that were deleted before then; how many of which. Empty: nothing is left to do.

    `most` of each table in all, of which `done` were moved already.
    """
    counts: dict[str, int] = {}
    for name, rule in gone_for_good(before).items():
        room = BATCH if most is None else min(BATCH, most - (done or {}).get(name, 0))
        rows = conn.execute(select(rule.table).where(rule.over).order_by(rule.key).limit(max(room, 0))).all()
        if not rows:
            continue
        keys = [getattr(row, rule.key.name) for row in rows]
        parts = _parts(conn, rule, keys)
        now = utcnow()
        conn.execute(
            insert(archive),
            [
                {
                    "of_table": rule.table.name, "row_key": str(key), "archived_at": now, "deleted_at": row.deleted_at,
                    "content": {"row": _plain(row), "parts": parts.get(key, {})},
                }
                for key, row in zip(keys, rows, strict=True)
            ],
        )  # fmt: skip
        fault_point("archive.copied")
        for part in rule.parts:
            conn.execute(delete(part.table).where(part.in_(keys)))
        counts[name] = conn.execute(delete(rule.table).where(rule.key.in_(keys))).rowcount
    return counts


def left(conn: Connection, before: datetime.datetime) -> dict[str, int]:
    """Rows that were deleted before then and stay, since something that is not deleted refers to them."""
    found = {name: _count(conn, rule) for name, rule in referenced(before).items()}
    return {name: count for name, count in found.items() if count}


def _count(conn: Connection, rule: Rule) -> int:
    return int(conn.execute(select(func.count()).select_from(rule.table).where(rule.over)).scalar_one())


def _parts(conn: Connection, rule: Rule, keys: list[Any]) -> dict[Any, dict[str, list[dict[str, Any]]]]:
    found: dict[Any, dict[str, list[dict[str, Any]]]] = {}
    for part in rule.parts:
        for row in conn.execute(select(part.table).where(part.in_(keys))):
            mine = found.setdefault(getattr(row, part.name), {})
            mine.setdefault(part.table.name, []).append(_plain(row))
    return found


def _plain(row: Row[Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime.datetime) else value
        for name, value in row._mapping.items()
    }
