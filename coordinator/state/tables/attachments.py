"""Attachments, and the generation of each (volume, host) pair. `owner`: `agent`, `compute` or `external`.

`transport` (null: none is needed) and `initiator` say how the volume's host offers it, `connection` how it is reached.
"""

from sqlalchemy import JSON, Column, DateTime, ForeignKey, Integer, String, Table, Text

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, partial, soft_delete, times

attachments = Table(
    "attachments",
    metadata,
    id_column(),
    Column("volume_id", String(36), ForeignKey("volumes.id"), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("owner", String(16), nullable=False),
    Column("instance_id", String(36)),
    Column("host_id", String(63)),
    Column("attached_host", String(255)),
    Column("mountpoint", String(255)),
    Column("attach_mode", String(4), nullable=False, default="rw"),
    Column("attach_status", String(32), nullable=False),
    Column("previous_status", String(32)),
    Column("connector", JSON),
    Column("connection_info", JSON),
    Column("device", JSON),
    Column("transport", String(32)),
    Column("initiator", String(223)),
    Column("connection", JSON),
    Column("attention", Text),
    Column("attach_time", DateTime),
    Column("detach_time", DateTime),
    *times(),
    *soft_delete(),
    partial("ix_attachments_live_volume", "volume_id", "project_id", "created_at", "id", where="NOT deleted"),
    partial("ix_attachments_live_all", "created_at", "id", where="NOT deleted"),
    partial("ix_attachments_live_instance", "instance_id", "project_id", "created_at", "id", where="NOT deleted"),
    partial("ix_attachments_live_status", "attach_status", "created_at", "id", where="NOT deleted"),
    partial("ix_attachments_live_project", "project_id", "created_at", "id", where="NOT deleted"),
)

generations = Table(
    "generations",
    metadata,
    Column("volume_id", String(36), primary_key=True),
    Column("host_id", String(63), primary_key=True),
    Column("incarnation", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
)
