"""Rows of what was deleted, moved out of the tables that are worked with. One row holds a thing with all its parts."""

from sqlalchemy import JSON, Column, DateTime, Index, String, Table

from coordinator.state.tables import metadata

archive = Table(
    "archive",
    metadata,
    Column("of_table", String(63), primary_key=True),
    Column("row_key", String(100), primary_key=True),
    Column("content", JSON, nullable=False),
    Column("deleted_at", DateTime, nullable=False),
    Column("archived_at", DateTime, nullable=False),
    Index("ix_archive_deleted", "deleted_at"),
)
"""`content` is `{"row": {...}, "parts": {TABLE: [{...}]}}` in plain JSON, so that no later schema has to follow."""
