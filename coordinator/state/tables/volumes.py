"""Volumes with their metadata. `size` is GiB as users see it; `device_bytes` is what the back end holds."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
    false,
    true,
)

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, partial, soft_delete, times

volumes = Table(
    "volumes",
    metadata,
    id_column(),
    Column("project_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("name", String(255)),
    Column("description", String(255)),
    Column("size", Integer, nullable=False),
    Column("reserved_size", Integer, nullable=False, default=0, server_default="0"),
    Column("status", String(32), nullable=False),
    Column("previous_status", String(32)),
    Column("attach_status", String(32), nullable=False, default="detached", server_default="detached"),
    Column("migration_status", String(32)),
    Column("availability_zone", String(255), nullable=False, default="nova", server_default="nova"),
    Column("host_id", String(63)),
    Column("backend", String(63)),
    Column("pool", String(63)),
    Column("pool_id", String(200)),
    Column("cluster_name", String(127)),
    Column("volume_type_id", String(36), ForeignKey("volume_types.id")),
    Column("snapshot_id", String(36)),
    Column("source_volid", String(36)),
    Column("image_id", String(36)),
    Column("bootable", Boolean, nullable=False, default=False, server_default=false()),
    Column("multiattach", Boolean, nullable=False, default=False, server_default=false()),
    Column("encryption_key_id", String(36)),
    Column("encryption_format", String(16)),
    Column("encryption_cipher", String(64)),
    Column("encryption_key_size", Integer),
    Column("use_quota", Boolean, nullable=False, default=True, server_default=true()),
    Column("device_bytes", BigInteger),
    Column("usable_bytes", BigInteger),
    Column("attention", Text),
    Column("group_id", String(36)),
    *times(),
    Column("launched_at", DateTime),
    Column("terminated_at", DateTime),
    *soft_delete(),
    partial("ix_volumes_live_project", "project_id", "created_at", "id", where="NOT deleted"),
    partial(
        "ix_volumes_live_quota",
        "project_id",
        "volume_type_id",
        "size",
        "reserved_size",
        # Not looked for, but in the condition: SQLite reads the rows themselves for what the index does not hold.
        "deleted",
        "use_quota",
        where="NOT deleted AND use_quota",
    ),
    partial("ix_volumes_live_all", "created_at", "id", where="NOT deleted"),
    partial("ix_volumes_live_host", "host_id", "created_at", "id", where="NOT deleted"),
    partial("ix_volumes_live_status", "status", "created_at", "id", where="NOT deleted"),
    partial("ix_volumes_live_project_status", "project_id", "status", "created_at", "id", where="NOT deleted"),
    partial("ix_volumes_live_zone", "availability_zone", "created_at", "id", where="NOT deleted"),
    # What finds a handful of rows begins with it in every project: with the project behind, it is the better of two.
    partial("ix_volumes_live_user", "user_id", "project_id", "created_at", "id", where="NOT deleted"),
    partial("ix_volumes_live_cluster", "cluster_name", where="NOT deleted AND cluster_name IS NOT NULL"),
    partial("ix_volumes_live_name", "name", "project_id", "created_at", "id", where="NOT deleted"),
    partial("ix_volumes_live_type", "volume_type_id", "created_at", "id", where="NOT deleted"),
    *(
        partial(
            f"ix_volumes_live_{name}",
            name,
            "project_id",
            "created_at",
            "id",
            where=f"NOT deleted AND {name} IS NOT NULL",
        )
        for name in ("snapshot_id", "source_volid", "group_id", "migration_status")
    ),
    *(
        partial(f"ix_volumes_live_{name}", name, "created_at", "id", where=f"NOT deleted AND {name}")
        for name in ("bootable", "multiattach")
    ),
    partial("ix_volumes_live_key", "encryption_key_id", where="NOT deleted AND encryption_key_id IS NOT NULL"),
    partial("ix_volumes_busy", "status", where="NOT deleted AND status NOT IN ('available', 'in-use')"),
)

volume_metadata = Table(
    "volume_metadata",
    metadata,
    Column("volume_id", String(36), ForeignKey("volumes.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", String(255), nullable=False),
)

volume_admin_metadata = Table(
    "volume_admin_metadata",
    metadata,
    Column("volume_id", String(36), ForeignKey("volumes.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", String(255), nullable=False),
)

volume_image_metadata = Table(
    "volume_image_metadata",
    metadata,
    Column("volume_id", String(36), ForeignKey("volumes.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)
