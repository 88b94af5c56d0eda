"""Column shapes that several tables share."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Boolean, Column, DateTime, Index, MetaData, String, false, text


def utcnow() -> datetime.datetime:
    """Naive UTC with microseconds, the form all time columns hold."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def id_column() -> Column[str]:
    return Column("id", String(36), primary_key=True)


def times() -> list[Column[Any]]:
    return [
        Column("created_at", DateTime, nullable=False, default=utcnow),
        Column("updated_at", DateTime),
    ]


def soft_delete() -> list[Column[Any]]:
    return [
        Column("deleted", Boolean, nullable=False, default=False, server_default=false()),
        Column("deleted_at", DateTime),
    ]


_ON_SQLITE = {
    "NOT deleted": "deleted = 0", "use_quota": "use_quota = 1", "AND bootable": "AND bootable = 1",
    "AND multiattach": "AND multiattach = 1",
}  # fmt: skip


def partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index over the rows that `where` (SQL for both databases) picks.

    The condition is given to SQLite here, and to PostgreSQL by `for_postgresql`: naming both would load the dialect of
    PostgreSQL, which costs every start 45 ms. SQLite uses the index only for queries that have the condition word by
    word, and there SQLAlchemy writes truth values as numbers.
    """
    spelt = where
    for term, number in _ON_SQLITE.items():
        spelt = spelt.replace(term, number)
    return Index(name, *columns, unique=unique, sqlite_where=text(spelt), info={"where": where})


def for_postgresql(metadata: MetaData) -> None:
    """Give PostgreSQL the conditions of the partial indexes; call before its schema is made."""
    for table in metadata.tables.values():
        for index in table.indexes:
            if "where" in index.info:
                index.dialect_options["postgresql"]["where"] = text(index.info["where"])
