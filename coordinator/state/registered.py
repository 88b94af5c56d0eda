"""Rows of images that were registered at an image service outside of the site."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from coordinator.state.operations import is_active
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.operations import operations
from coordinator.state.tables.registered_images import registered_images as table


def note(conn: Connection, image_id: str, key_id: str | None) -> None:
    """Before the service is asked for it."""
    conn.execute(insert(table).values(image_id=image_id, key_id=key_id, looked_at=utcnow()))


def accepted(conn: Connection, image_id: str, operation_id: str) -> bool:
    """Its upload begins; False where it was given up meanwhile."""
    query = update(table).where(table.c.image_id == image_id).values(operation_id=operation_id, updated_at=utcnow())
    return bool(conn.execute(query).rowcount)


def uploaded(conn: Connection, image_id: str) -> None:
    """Its upload is done: only for the sake of its key it is still of interest."""
    conn.execute(delete(table).where(table.c.image_id == image_id, table.c.key_id.is_(None)))


def drop(conn: Connection, image_id: str) -> bool:
    """Forget it; False where somebody else did."""
    return bool(conn.execute(delete(table).where(table.c.image_id == image_id)).rowcount)


def is_given_up(row: Row[Any]) -> bool:
    """Whether the call that registered it came to no end."""
    return row.operation_id is None


def due(conn: Connection, given_up: datetime.timedelta, most: int) -> list[Row[Any]]:
    """Those whose upload is over, and those whose call began longer ago than `given_up`; not looked at for longest."""
    query = (
        select(table)
        .outerjoin(operations, operations.c.id == table.c.operation_id)
        .where(
            or_(
                table.c.operation_id.is_(None) & (table.c.created_at < utcnow() - given_up),
                table.c.operation_id.is_not(None) & (operations.c.id.is_(None) | ~is_active()),
            )
        )
        .order_by(table.c.looked_at, table.c.image_id)
        .limit(most)
    )
    return list(conn.execute(query))


def looked(conn: Connection, image_id: str) -> None:
    """Others come first the next time."""
    conn.execute(update(table).where(table.c.image_id == image_id).values(looked_at=utcnow()))
