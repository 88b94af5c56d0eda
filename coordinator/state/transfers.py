"""Offers of volumes to other projects: rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, insert, select, update

from agent.base.errors import NotFound
from agent.base.ids import new_id
from coordinator.state.paging import Page, page_of
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.transfers import transfers as table

_ONE = select(table).where(table.c.id == bindparam("wanted"), ~table.c.deleted)


def get(conn: Connection, transfer_id: str) -> Row[Any]:
    """An open offer, whosever it is; raises NotFound."""
    row = conn.execute(_ONE, {"wanted": transfer_id}).one_or_none()
    if row is None:
        raise NotFound(noun="Transfer", id=transfer_id)
    return row


def add(conn: Connection, **values: Any) -> Row[Any]:
    return conn.execute(insert(table).values(id=new_id(), **values).returning(table)).one()


def listing(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page
) -> Sequence[Row[Any]]:
    """Open offers of one project, or of all."""
    mine = ~table.c.deleted if project_id is None else and_(table.c.source_project_id == project_id, ~table.c.deleted)
    return page_of(conn, select(table).where(mine, *where), table, page, mine)


def of_volume(conn: Connection, volume_id: str) -> Sequence[Row[Any]]:
    """All offers of a volume there ever were, the newest first, as long as they are kept."""
    mine = select(table).where(table.c.volume_id == volume_id)
    return conn.execute(mine.order_by(table.c.created_at.desc(), table.c.id.desc())).all()


def close(conn: Connection, transfer_id: str, destination: str | None) -> bool:
    """End an open offer, taken up by `destination` or by nobody; False when it was ended already."""
    now = utcnow()
    values = {"deleted": True, "deleted_at": now, "updated_at": now}
    if destination is not None:
        values |= {"accepted": True, "destination_project_id": destination}
    open_one = update(table).where(table.c.id == transfer_id, ~table.c.deleted)
    return conn.execute(open_one.values(**values)).rowcount > 0


def withdraw(conn: Connection, volume_id: str) -> bool:
    """End the open offer of a volume, so that nobody can take it up any more; False when there is none."""
    now = utcnow()
    open_one = update(table).where(table.c.volume_id == volume_id, ~table.c.deleted)
    return conn.execute(open_one.values(deleted=True, deleted_at=now, updated_at=now)).rowcount > 0
