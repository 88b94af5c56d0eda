"""The outbox: what happened, and how far those who are told of it have come.

An event is written in the transaction of its change and gets its `position` later, in the order in which positions are
given out (`coordinator.state.events`): `seq` alone may become visible out of order where several write.
"""

from sqlalchemy import JSON, BigInteger, Column, DateTime, Index, Integer, String, Table, Text

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import partial

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("position", BigInteger),
    Column("at", DateTime, nullable=False),
    Column("type", String(63), nullable=False),
    Column("resource_type", String(32), nullable=False),
    Column("resource_id", String(36), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("payload", JSON, nullable=False),
    Index("ix_events_position", "position", unique=True),
    Index("ix_events_project", "project_id", "position"),
    partial("ix_events_new", "seq", where="position IS NULL"),
    sqlite_autoincrement=True,
)

event_numbering = Table(
    "event_numbering",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
)
"""One row (id 1): the last position that was given out. Whoever gives out positions holds it."""

event_consumers = Table(
    "event_consumers",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("failing_since", DateTime),
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    Column("last_error", Text),
)
"""Who is told of events: all up to `position` were delivered (or given up)."""
