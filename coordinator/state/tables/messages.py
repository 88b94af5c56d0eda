"""User messages: every failure that a user can see, with its remedy."""

from sqlalchemy import Column, DateTime, Index, String, Table, Text

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column

messages = Table(
    "messages",
    metadata,
    id_column(),
    Column("project_id", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("resource_type", String(32), nullable=False),
    Column("resource_uuid", String(36)),
    Column("event_id", String(63), nullable=False),
    Column("code", String(63), nullable=False),
    Column("action", String(63), nullable=False),
    Column("message_level", String(16), nullable=False, default="ERROR"),
    Column("user_message", Text, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("guaranteed_until", DateTime, nullable=False),
    Index("ix_messages_project", "project_id", "created_at", "id"),
)
