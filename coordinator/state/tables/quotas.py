"""Limits alone: usage is always counted from the rows themselves."""

from sqlalchemy import Column, Integer, String, Table

from coordinator.state.tables import metadata

quota_limits = Table(
    "quota_limits",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("resource", String(300), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)
"""`project_id` is a project, or `class:NAME` for a quota class (`class:default` holds the site's defaults)."""
