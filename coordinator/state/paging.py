"""One page of a list by key, never by counting: the cost is flat however long the list is.

NULL sorts before every value, on both databases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, func, or_, select, tuple_

from agent.base.errors import NotFound

NEWEST_FIRST = (("created_at", True), ("id", True))


@dataclass(frozen=True, slots=True)
class Page:
    """`sorts` are (column, descending) and end with a unique one; `marker` is the id that the page starts after."""

    limit: int
    marker: str | None = None
    sorts: tuple[tuple[str, bool], ...] = NEWEST_FIRST
    offset: int = 0


def page_of(
    conn: Connection, query: Select[Any], table: Table, page: Page, among: ColumnElement[bool] | None = None
) -> Sequence[Row[Any]]:
    """The rows of `query` (a select over `table`) on this page.

    `among` says which rows the caller may name as marker (his project's); filters do not belong in it, for the
    marker's row may have changed since. Raises NotFound for any other marker.
    """
    if page.marker is not None:
        query = query.where(_after(table, page.sorts, _marker(conn, table, page, among)))
    order = [_order(table.c[name], descending) for name, descending in page.sorts]
    query = query.order_by(*order).limit(page.limit)
    return conn.execute(query.offset(page.offset) if page.offset else query).all()


def count_of(conn: Connection, query: Select[Any]) -> int:
    """How many rows `query` has in all."""
    return int(conn.execute(select(func.count()).select_from(query.order_by(None).subquery())).scalar_one())


def _marker(conn: Connection, table: Table, page: Page, among: ColumnElement[bool] | None) -> Row[Any]:
    query = select(*(table.c[name] for name, _ in page.sorts)).where(table.c.id == page.marker)
    row = conn.execute(query.where(among) if among is not None else query).one_or_none()
    if row is None:
        raise NotFound(noun="Marker", id=page.marker)
    return row


def _order(column: ColumnElement[Any], descending: bool) -> ColumnElement[Any]:
    if not getattr(column, "nullable", False):
        return column.desc() if descending else column.asc()
    return column.desc().nulls_last() if descending else column.asc().nulls_first()


def _after(table: Table, sorts: Sequence[tuple[str, bool]], marker: Row[Any]) -> ColumnElement[bool]:
    columns = [table.c[name] for name, _ in sorts]
    directions = {descending for _, descending in sorts}
    if len(directions) == 1 and not any(column.nullable for column in columns):
        mine, theirs = tuple_(*columns), tuple_(*marker)
        return mine < theirs if directions == {True} else mine > theirs
    either: list[ColumnElement[bool]] = []
    same: list[ColumnElement[bool]] = []
    for column, (_, descending), value in zip(columns, sorts, marker, strict=True):
        further = _further(column, descending, value)
        if further is not None:
            either.append(and_(*same, further))
        same.append(column.is_(None) if value is None else column == value)
    return or_(*either)


def _further(column: ColumnElement[Any], descending: bool, value: Any) -> ColumnElement[bool] | None:
    """What comes after `value` in one column; None when nothing does."""
    if value is None:
        return None if descending else column.is_not(None)
    if not descending:
        more: ColumnElement[bool] = column > value
        return more
    less: ColumnElement[bool] = column < value
    return or_(less, column.is_(None)) if getattr(column, "nullable", False) else less
