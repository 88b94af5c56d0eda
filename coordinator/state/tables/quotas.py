"""Limits, and (only where the site keeps them) sums of what is used."""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table

from coordinator.state.tables import metadata

quota_limits = Table(
    "quota_limits",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("resource", String(300), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)
"""`project_id` is a project, or `class:NAME` for a quota class (`class:default` holds the site's defaults)."""

quota_usages = Table(
    "quota_usages",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("volume_type_id", String(36), primary_key=True),
    Column("volumes", Integer, nullable=False),
    Column("gigabytes", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("snapshots", Integer, nullable=False),
    Column("snapshot_gigabytes", BigInteger, nullable=False),
)
"""Empty unless `quota.driver` is `stored`. `volume_type_id` is empty for what has no type."""

quota_projects = Table(
    "quota_projects",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("parent_id", String(64)),
    Index("ix_quota_projects_parent", "parent_id"),
)
"""Only where quotas are shared out in the tree of projects (`quota.nested`): what is known of that tree."""
