"""What is known of each enrolled host (`enrolled_hosts` says where it is), its pools, and the issues found.

Sizes are bytes.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    false,
    true,
)

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, partial, times

hosts = Table(
    "hosts",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("enabled", Boolean, nullable=False, default=True, server_default=true()),
    Column("disabled_reason", String(255)),
    Column("drained_at", DateTime),
    Column("reachable", Boolean, nullable=False, default=False, server_default=false()),
    Column("reachable_since", DateTime),
    Column("last_seen", DateTime),
    Column("availability_zone", String(255), nullable=False, default="nova", server_default="nova"),
    Column("keeps_images", Boolean, nullable=False, default=False, server_default=false()),
    Column("facts", JSON),
    *times(),
)

pools = Table(
    "pools",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("host_id", String(63), ForeignKey("hosts.id"), nullable=False),
    Column("backend", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("driver", String(63), nullable=False),
    Column("total_bytes", BigInteger, nullable=False),
    Column("free_bytes", BigInteger, nullable=False),
    Column("provisioned_bytes", BigInteger, nullable=False, default=0, server_default="0"),
    Column("max_over_subscription", Double, nullable=False, default=20.0, server_default="20.0"),
    Column("reserved_percent", Integer, nullable=False, default=0, server_default="0"),
    Column("thin", Boolean, nullable=False, default=True, server_default=true()),
    Column("reported", JSON, nullable=False),
    Column("present", Boolean, nullable=False, default=True, server_default=true()),
    Column("disabled", Boolean, nullable=False, default=False, server_default=false()),
    Column("cluster_name", String(127)),
    Column("frozen", Boolean, nullable=False, default=False, server_default=false()),
    Column("updated_at", DateTime),
    Index("ix_pools_host", "host_id"),
    partial("ix_pools_cluster", "cluster_name", where="cluster_name IS NOT NULL"),
)

clusters = Table(
    "clusters",
    metadata,
    Column("name", String(127), primary_key=True),
    Column("disabled", Boolean, nullable=False, default=False, server_default=false()),
    Column("disabled_reason", String(255)),
    *times(),
)
"""`NAME@BACKEND`: a back end that several hosts serve. Its members are the pools that have its name."""

evictions = Table(
    "evictions",
    metadata,
    id_column(),
    Column("host_id", String(63), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("evidence", String(16)),
    Column("words", Text),
    Column("counts", JSON, nullable=False),
    Column("at", DateTime, nullable=False),
    Column("returned_at", DateTime),
    Column("cleared_at", DateTime),
    Column("taken", JSON),
    Index("ix_evictions_host", "host_id", "at"),
)
"""Hosts that were given up, on whose word and with what evidence. `returned_at`: it was enrolled again since.

`taken` counts, by what, what it still held and the site had ended meanwhile; `cleared_at`: nothing of that is left.
"""

issues = Table(
    "issues",
    metadata,
    id_column(),
    Column("code", String(63), nullable=False),
    Column("resource_type", String(32), nullable=False),
    Column("resource_id", String(64), nullable=False),
    Column("host_id", String(63)),
    Column("project_id", String(64)),
    Column("sentence", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Column("request_id", String(64)),
    Column("first_seen", DateTime, nullable=False),
    Column("last_seen", DateTime, nullable=False),
    Column("closed_at", DateTime),
    partial("uq_issues_open", "code", "resource_type", "resource_id", unique=True, where="closed_at IS NULL"),
)
