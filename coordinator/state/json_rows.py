"""What hangs on a row, gathered by the database itself: one text of JSON in a column, instead of a query of its own.

One statement with such columns reads a page with all that belongs to it. The names of the functions differ between
databases; that is known here and nowhere else.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, String, Table, select
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
    query = select(_Lists(*(table.c[name] for name in columns))).where(*where)
    return query.correlate_except(table).scalar_subquery()


def pairs_in(text: str | None) -> dict[str, str]:
    """Sorted by key."""
    if text is None or text == "{}":
        return {}
    found: dict[str, str] = json.loads(text)
    return found if len(found) == 1 else dict(sorted(found.items()))


def lists_in(text: str | None) -> list[list[Any]]:
    """In no order; times are texts."""
    return [] if text is None or text == "[]" else list(json.loads(text))
