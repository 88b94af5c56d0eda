"""Snapshots with their metadata. `volume_size` is GiB at the time of the snapshot."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, String, Table, Text, true

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, partial, soft_delete, times

snapshots = Table(
    "snapshots",
    metadata,
    id_column(),
    Column("project_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("volume_id", String(36), ForeignKey("volumes.id"), nullable=False),
    Column("volume_type_id", String(36)),
    Column("name", String(255)),
    Column("description", String(255)),
    Column("volume_size", Integer, nullable=False),
    Column("status", String(32), nullable=False),
    Column("previous_status", String(32)),
    Column("encryption_key_id", String(36)),
    Column("device_bytes", BigInteger),
    Column("usable_bytes", BigInteger),
    Column("use_quota", Boolean, nullable=False, default=True, server_default=true()),
    Column("attention", Text),
    *times(),
    *soft_delete(),
    partial("ix_snapshots_live_project", "project_id", "created_at", "id", where="NOT deleted"),
    partial(
        "ix_snapshots_live_quota",
        "project_id",
        "volume_type_id",
        "volume_size",
        "deleted",
        "use_quota",
        where="NOT deleted AND use_quota",
    ),
    partial("ix_snapshots_live_all", "created_at", "id", where="NOT deleted"),
    partial("ix_snapshots_live_status", "status", "created_at", "id", where="NOT deleted"),
    partial("ix_snapshots_live_volume", "volume_id", "project_id", "created_at", "id", where="NOT deleted"),
    partial("ix_snapshots_live_name", "name", "project_id", "created_at", "id", where="NOT deleted"),
    partial("ix_snapshots_live_key", "encryption_key_id", where="NOT deleted AND encryption_key_id IS NOT NULL"),
)

snapshot_metadata = Table(
    "snapshot_metadata",
    metadata,
    Column("snapshot_id", String(36), ForeignKey("snapshots.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", String(255), nullable=False),
)
