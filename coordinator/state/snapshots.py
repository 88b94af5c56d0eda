"""Snapshot rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from agent.base.errors import NotFound
from coordinator.state import usage
from coordinator.state.locks import held
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.snapshots import snapshot_metadata, snapshots


def get(conn: Connection, snapshot_id: str, project_id: str | None = None) -> Row[Any]:
    """A live snapshot; `project_id` None sees all. Raises NotFound, also for a foreign project's snapshot."""
    query = select(snapshots).where(snapshots.c.id == snapshot_id, ~snapshots.c.deleted)
    if project_id is not None:
        query = query.where(snapshots.c.project_id == project_id)
    row = conn.execute(held(conn, query)).one_or_none()
    if row is None:
        raise NotFound(noun="Snapshot", id=snapshot_id)
    return row


def find(conn: Connection, snapshot_id: str) -> Row[Any] | None:
    """A live snapshot, or None."""
    return conn.execute(select(snapshots).where(snapshots.c.id == snapshot_id, ~snapshots.c.deleted)).one_or_none()


def count_of(conn: Connection, volume_id: str) -> int:
    """Live snapshots of one volume."""
    query = select(func.count()).where(snapshots.c.volume_id == volume_id, ~snapshots.c.deleted)
    return int(conn.execute(query).scalar_one())


def of_volume(conn: Connection, volume_id: str) -> Sequence[Row[Any]]:
    """Live snapshots of one volume, oldest first."""
    query = select(snapshots).where(snapshots.c.volume_id == volume_id, ~snapshots.c.deleted)
    return conn.execute(query.order_by(snapshots.c.created_at, snapshots.c.id)).all()


def put_metadata(conn: Connection, snapshot_id: str, values: dict[str, str]) -> None:
    """Add metadata rows of a new snapshot."""
    if values:
        rows = [{"snapshot_id": snapshot_id, "key": key, "value": value} for key, value in values.items()]
        conn.execute(insert(snapshot_metadata), rows)


def set_values(conn: Connection, snapshot_id: str, **values: Any) -> None:
    """Set columns other than the status."""
    assert not {"status", "deleted"} & values.keys(), "a status moves only along its table"
    was = usage.before(conn, snapshots, snapshot_id, values)
    conn.execute(update(snapshots).where(snapshots.c.id == snapshot_id).values(updated_at=utcnow(), **values))
    if was is not None:
        usage.changed(conn, was, conn.execute(select(snapshots).where(snapshots.c.id == snapshot_id)).one())
