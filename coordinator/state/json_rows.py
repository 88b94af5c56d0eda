"""Rows, and what hangs on them, gathered by the database itself into one text of JSON.

One statement with such columns reads a page with all that belongs to it; a page that is one text as a whole is one step
of the database instead of one for each row (each lets other threads run in between, which costs more than the row). The
names of the functions differ between databases; that is known here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import ColumnElement, DateTime, ScalarSelect, Select, String, Table, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class _Pairs(FunctionElement[str]):
    """An object of keys and values."""

    inherit_cache = True
    type = String()


class _Lists(FunctionElement[str]):
    """A list of lists, one for each row."""

    inherit_cache = True
    type = String()


class _Stamp(FunctionElement[str]):
    """A time in the form of answers: naive UTC with microseconds."""

    inherit_cache = True
    type = String()


@compiles(_Stamp)
def _sqlite_stamp(element: _Stamp, compiler: Any, **more: Any) -> str:
    return f"replace({compiler.process(element.clauses, **more)}, ' ', 'T')"


@compiles(_Stamp, "postgresql")
def _postgresql_stamp(element: _Stamp, compiler: Any, **more: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **more)}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"


@compiles(_Pairs)
def _sqlite_pairs(element: _Pairs, compiler: Any, **more: Any) -> str:
    return f"json_group_object({compiler.process(element.clauses, **more)})"


@compiles(_Pairs, "postgresql")
def _postgresql_pairs(element: _Pairs, compiler: Any, **more: Any) -> str:
    return f"CAST(json_object_agg({compiler.process(element.clauses, **more)}) AS TEXT)"


@compiles(_Lists)
def _sqlite_lists(element: _Lists, compiler: Any, **more: Any) -> str:
    return f"json_group_array(json_array({compiler.process(element.clauses, **more)}))"


@compiles(_Lists, "postgresql")
def _postgresql_lists(element: _Lists, compiler: Any, **more: Any) -> str:
    return f"CAST(json_agg(json_build_array({compiler.process(element.clauses, **more)})) AS TEXT)"


def pairs_column(
    table: Table, column: str, owner: ColumnElement[Any], *where: ColumnElement[bool]
) -> ScalarSelect[str]:
    """Keys and values of `table` for the row that `owner` names; read it with `pairs_in`."""
    query = select(_Pairs(table.c.key, table.c.value)).where(table.c[column] == owner, *where)
    return query.correlate_except(table).scalar_subquery()


def lists_column(table: Table, columns: tuple[str, ...], *where: ColumnElement[bool]) -> ScalarSelect[str]:
    """These columns of the rows of `table` that `where` ties to the outer row; read it with `lists_in`."""
    query = select(_Lists(*(_plain(table.c[name]) for name in columns))).where(*where)
    return query.correlate_except(table).scalar_subquery()


def as_one_text(query: Select[Any]) -> Select[Any]:
    """All rows of `query`, in its order, as one text; read it with `lists_in`. A query without LIMIT has no order."""
    rows = query.subquery()
    return select(_Lists(*(_plain(column) for column in rows.c))).select_from(rows)


def _plain(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return _Stamp(column) if isinstance(column.type, DateTime) else column


def pairs_in(value: str | dict[str, str] | None) -> dict[str, str]:
    """Sorted by key. What stood within a larger text is a text still, or has been read with it already."""
    found: dict[str, str] | None = orjson.loads(value) if isinstance(value, str) else value
    if not found:
        return {}
    return found if len(found) == 1 else dict(sorted(found.items()))


def lists_in(value: str | list[list[Any]] | None) -> list[list[Any]]:
    """Times are texts in the form of answers; truth values are numbers on SQLite."""
    return (orjson.loads(value) if isinstance(value, str) else value) or []
