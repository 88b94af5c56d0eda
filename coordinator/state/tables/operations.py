"""Operations: the durable work of coordinators.

`steps` maps a step's name to `{state, attempt, result}`; names and result shapes are frozen per (kind, version).
`lease_until` is in seconds since 1970 on the database's clock.
"""

from sqlalchemy import JSON, Boolean, Column, DateTime, Double, Index, Integer, String, Table, Text, false

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, partial, times

_ACTIVE = "state IN ('running', 'undoing')"

operations = Table(
    "operations",
    metadata,
    id_column(),
    Column("kind", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("resource_type", String(32), nullable=False),
    Column("resource_id", String(36), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("args", JSON, nullable=False),
    Column("steps", JSON, nullable=False),
    Column("state", String(32), nullable=False),
    Column("step", String(63)),
    Column("waiting", Text),
    Column("waiting_since", DateTime),
    Column("progress", JSON),
    Column("error", JSON),
    Column("cancel_requested", Boolean, nullable=False, default=False, server_default=false()),
    Column("owner", String(64)),
    Column("epoch", Integer, nullable=False, default=0, server_default="0"),
    Column("lease_until", Double),
    *times(),
    Column("finished_at", DateTime),
    partial("ix_operations_active", "lease_until", where=_ACTIVE),
    Index("ix_operations_resource", "resource_id", "created_at"),
    Index("ix_operations_project", "project_id", "created_at", "id"),
)
