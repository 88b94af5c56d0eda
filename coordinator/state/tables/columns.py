"""Column shapes that several tables share."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Boolean, Column, DateTime, String, false


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
