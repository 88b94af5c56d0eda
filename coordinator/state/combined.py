"""One statement for many rows, on PostgreSQL: they travel as one text of JSON, which the server makes a table of.

So a statement is the same for any number of rows, and stays prepared. For `coordinator.state.together.later`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Row, Table
from sqlalchemy.engine.result import result_tuple

from coordinator.state.together import Act, HopeLost

Items = list[dict[str, Any]]


@cache
def inserting(table: Table, computed: tuple[tuple[str, str], ...] = ()) -> Act:
    """Insert rows that are whole (`whole`); `computed` are columns that SQL gives a value."""
    given = [column for column in _written(table) if column.name not in dict(computed)]
    names = ", ".join([*(column.name for column in given), *dict(computed)])
    values = ", ".join([*(f"v.{column.name}" for column in given), *dict(computed).values()])
    sql = f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {_rows(given)}"  # noqa: S608

    def act(conn: Connection, items: Items) -> None:
        _run(conn, sql, items)

    return act


@cache
def updating(
    table: Table, names: tuple[str, ...], same: tuple[str, ...] = ("id",), where: str = "true", *, adding: bool = False
) -> Act:
    """Set `names` in the rows that have `same` alike, and fulfil `where`; HopeLost unless each is found.

    `adding`: what is given is added to what is there.
    """
    sets = ", ".join(f"{name} = " + (f"{table.name}.{name} + " if adding else "") + f"v.{name}" for name in names)
    alike = " AND ".join(f"{table.name}.{name} = v.{name}" for name in same)
    given = [table.c[name] for name in (*same, *names)]

    sql = f"UPDATE {table.name} SET {sets} FROM {_rows(given)} WHERE {alike} AND {where}"  # noqa: S608

    def act(conn: Connection, items: Items) -> None:
        if _run(conn, sql, items) != len(items):
            raise HopeLost

    return act


def _rows(given: Iterable[Column[Any]]) -> str:
    from sqlalchemy.dialects.postgresql import dialect  # 3 MiB that a site on SQLite does without

    spoken = dialect()  # type: ignore[no-untyped-call]
    shape = ", ".join(f"{column.name} {column.type.compile(dialect=spoken)}" for column in given)
    # Without the limit PostgreSQL reckons with a hundred rows, and would rather read a table of some thousand than look
    # for so many.
    return f"(SELECT * FROM json_to_recordset(CAST(%(rows)s AS json)) AS told({shape}) LIMIT %(count)s) AS v"  # noqa: S608


def _run(conn: Connection, sql: str, items: Items) -> int:
    rows = orjson.dumps(items, option=orjson.OPT_NON_STR_KEYS).decode()
    return conn.exec_driver_sql(sql, {"rows": rows, "count": len(items)}).rowcount


@cache
def _written(table: Table) -> tuple[Column[Any], ...]:
    return tuple(column for column in table.c if column is not table.autoincrement_column)


@cache
def _defaults(table: Table) -> tuple[tuple[str, Any], ...]:
    return tuple((column.name, getattr(column.default, "arg", None)) for column in _written(table))


def whole(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """All columns of a new row, with what the table gives where nothing is said."""
    return {
        name: values[name] if name in values else default(None) if callable(default) else default
        for name, default in _defaults(table)
    }


@cache
def _maker(table: Table) -> Callable[[Iterable[Any]], Row[Any]]:
    return result_tuple(tuple(column.name for column in table.c))


def row_of(table: Table, values: Mapping[str, Any]) -> Row[Any]:
    """A row as it would be read back."""
    return _maker(table)([values[column.name] for column in table.c])


def altered(table: Table, row: Row[Any], values: Mapping[str, Any]) -> Row[Any]:
    """The row with other values."""
    return row_of(table, {**row._mapping, **values})
