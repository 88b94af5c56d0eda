"""All rows of a state carried from one database to another, of whatever kind, and compared one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, insert, select, text

from agent.base.errors import Permanent
from agent.base.faults import declare, fault_point
from coordinator.state.tables import load_all

_AT_ONCE = 500
declare("rows.carried")


class RowsDiffer(Permanent):
    code = "state.rows-differ"
    exit_code = 6
    sentence = "Table {table} was not carried over rightly: {here} rows of {there} are there and the same."
    hint = "Nothing was changed. Check the source with db check, then try again; report it with the support bundle."


def tables() -> list[Table]:
    """Every table, parents first."""
    return list(load_all().sorted_tables)


def is_empty(conn: Connection) -> bool:
    """Whether no table has a row."""
    return not counts(conn)


def counts(conn: Connection) -> dict[str, int]:
    """How many rows each table has; one with none is left out."""
    found = {table.name: conn.execute(select(func.count()).select_from(table)).scalar_one() for table in tables()}
    return {name: count for name, count in found.items() if count}


def carry(source: Connection, target: Connection) -> dict[str, int]:
    """Replace all rows of `target` by those of `source`, in the caller's transactions; returns how many per table.

    Both must have this release's schema. Raises RowsDiffer when what can be read back is not the same.
    """
    for table in reversed(tables()):
        target.execute(delete(table))
    carried: dict[str, int] = {}
    for table in tables():
        for some in _batches(source, table):
            target.execute(insert(table), [dict(row._mapping) for row in some])
            carried[table.name] = carried.get(table.name, 0) + len(some)
        _set_sequence(target, table)
        fault_point("rows.carried")
    for table in tables():
        there, here = digests(source, table), digests(target, table)
        if there != here:
            same = len(set(there.items()) & set(here.items()))
            raise RowsDiffer(table=table.name, here=same, there=len(there))
    return carried


def digests(conn: Connection, table: Table) -> Mapping[tuple[Any, ...], bytes]:
    """A digest of each row by its primary key, the same on every kind of database."""
    keys = [column.name for column in table.primary_key.columns]
    found: dict[tuple[Any, ...], bytes] = {}
    for some in _batches(conn, table):
        for row in some:
            found[tuple(row._mapping[key] for key in keys)] = _digest(row)
    return found


def _digest(row: Row[Any]) -> bytes:
    values = {name: _plain(value) for name, value in row._mapping.items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).digest()[:16]


def _plain(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, (bytes, memoryview)) else value


def _batches(conn: Connection, table: Table) -> Iterator[list[Row[Any]]]:
    order = list(table.primary_key.columns)
    result = conn.execute(select(table).order_by(*order).execution_options(yield_per=_AT_ONCE))
    for some in result.partitions(_AT_ONCE):
        yield list(some)


def _set_sequence(conn: Connection, table: Table) -> None:
    """Rows that were carried have their numbers; PostgreSQL's counter must go on behind them (SQLite's does)."""
    column = table.autoincrement_column
    if conn.dialect.name != "postgresql" or column is None:
        return
    last = conn.execute(select(func.max(column))).scalar_one()
    if last is not None:
        name = {"table": table.name, "column": column.name, "last": last}
        conn.execute(text("SELECT setval(pg_get_serial_sequence(:table, :column), :last)"), name)
