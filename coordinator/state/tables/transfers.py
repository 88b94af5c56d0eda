"""Offers of a volume to another project. The key that takes one up is kept as a salted hash alone.

A row stays when its offer has ended, so that an administrator can see who gave what to whom.
"""

from sqlalchemy import Boolean, Column, ForeignKey, Index, String, Table, false

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, partial, soft_delete, times

transfers = Table(
    "transfers",
    metadata,
    id_column(),
    Column("volume_id", String(36), ForeignKey("volumes.id"), nullable=False),
    Column("name", String(255)),
    Column("salt", String(64), nullable=False),
    Column("key_hash", String(64), nullable=False),
    Column("no_snapshots", Boolean, nullable=False, default=False, server_default=false()),
    Column("source_project_id", String(64), nullable=False),
    Column("destination_project_id", String(64)),
    Column("accepted", Boolean, nullable=False, default=False, server_default=false()),
    *times(),
    *soft_delete(),
    partial("uq_transfers_live_volume", "volume_id", unique=True, where="NOT deleted"),
    partial("ix_transfers_live_project", "source_project_id", "created_at", "id", where="NOT deleted"),
    Index("ix_transfers_volume", "volume_id", "created_at"),
    partial("ix_transfers_live_all", "created_at", "id", where="NOT deleted"),
)
