"""One page of a list by key, never by counting: the cost is flat however long the list is.

NULL sorts before every value, on both databases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    func,
    or_,
    select,
    tuple_,
)

from agent.base.errors import NotFound
from coordinator.state.json_rows import as_one_text, lists_in

NEWEST_FIRST = (("created_at", True), ("id", True))


@dataclass(frozen=True, slots=True)
class Page:
    """`sorts` are (column, descending) and end with a unique one; `marker` is the id that the page starts after."""

    limit: int
    marker: str | None = None
    sorts: tuple[tuple[str, bool], ...] = NEWEST_FIRST
    offset: int = 0


def page_of(
    conn: Connection,
    query: Select[Any],
    table: Table,
    page: Page,
    among: ColumnElement[bool] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
) -> Sequence[Row[Any]]:
    """The rows of `query` (a select over `table`) on this page.

    `among` says which rows the caller may name as marker (his project's); filters do not belong in it, for the
    marker's row may have changed since. Raises NotFound for any other marker.

    `given` are the parameters of a `query` and an `among` that are made once for all calls: then the statement of the
    page is put together once as well, which costs more than running it.
    """
    return _run(conn, query, table, page, among=among, given=given, whole=False).all()


def page_text(
    conn: Connection,
    query: Select[Any],
    table: Table,
    page: Page,
    among: ColumnElement[bool] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
) -> list[list[Any]]:
    """Like `page_of`, the rows gathered by the database into one text: values as `lists_in` gives them."""
    return lists_in(_run(conn, query, table, page, among=among, given=given, whole=True).scalar_one())


def _run(
    conn: Connection, query: Select[Any], table: Table, page: Page, *, among: ColumnElement[bool] | None,
    given: Mapping[str, Any] | None, whole: bool
) -> CursorResult[Any]:  # fmt: skip
    if given is not None and not page.offset and not any(table.c[name].nullable for name, _ in page.sorts):
        values = {**given, "page_limit": page.limit}
        if page.marker is not None:
            marker = _marker(conn, table, page, among, given)
            values |= {f"after_{number}": value for number, value in enumerate(marker)}
        return conn.execute(_prepared(query, table, page.sorts, page.marker is not None, whole), values)
    if page.marker is not None:
        query = query.where(_after(table, page.sorts, _marker(conn, table, page, among, given)))
    query = _ordered(query, table, page.sorts).limit(page.limit)
    query = query.offset(page.offset) if page.offset else query
    return conn.execute(as_one_text(query) if whole else query, given)


@lru_cache(maxsize=256)
def _prepared(
    query: Select[Any], table: Table, sorts: tuple[tuple[str, bool], ...], after: bool, whole: bool
) -> Select[Any]:
    if after:
        marker = [bindparam(f"after_{number}", type_=table.c[name].type) for number, (name, _) in enumerate(sorts)]
        query = query.where(_after(table, sorts, marker))
    query = _ordered(query, table, sorts).limit(bindparam("page_limit"))
    return as_one_text(query) if whole else query


def _ordered(query: Select[Any], table: Table, sorts: Sequence[tuple[str, bool]]) -> Select[Any]:
    return query.order_by(*(_order(table.c[name], descending) for name, descending in sorts))


def count_of(conn: Connection, query: Select[Any]) -> int:
    """How many rows `query` has in all."""
    return int(conn.execute(select(func.count()).select_from(query.order_by(None).subquery())).scalar_one())


def _marker(
    conn: Connection, table: Table, page: Page, among: ColumnElement[bool] | None, given: Mapping[str, Any] | None
) -> Row[Any]:
    if given is None:
        query = select(*(table.c[name] for name, _ in page.sorts)).where(table.c.id == page.marker)
        row = conn.execute(query.where(among) if among is not None else query).one_or_none()
    else:
        row = conn.execute(_marker_query(table, page.sorts, among), {**given, "marker": page.marker}).one_or_none()
    if row is None:
        raise NotFound(noun="Marker", id=page.marker)
    return row


@lru_cache(maxsize=256)
def _marker_query(table: Table, sorts: tuple[tuple[str, bool], ...], among: ColumnElement[bool] | None) -> Select[Any]:
    query = select(*(table.c[name] for name, _ in sorts)).where(table.c.id == bindparam("marker"))
    return query.where(among) if among is not None else query


def _order(column: ColumnElement[Any], descending: bool) -> ColumnElement[Any]:
    if not getattr(column, "nullable", False):
        return column.desc() if descending else column.asc()
    return column.desc().nulls_last() if descending else column.asc().nulls_first()


def _after(table: Table, sorts: Sequence[tuple[str, bool]], marker: Sequence[Any]) -> ColumnElement[bool]:
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
