"""The built-in image catalog; the bytes lie on the store agent `host_id`."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Integer, String, Table, Text, false

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, partial, soft_delete, times

images = Table(
    "images",
    metadata,
    id_column(),
    Column("owner", String(64), nullable=False),
    Column("name", String(255)),
    Column("status", String(32), nullable=False),
    Column("previous_status", String(32)),
    Column("visibility", String(16), nullable=False, default="private"),
    Column("protected", Boolean, nullable=False, default=False, server_default=false()),
    Column("disk_format", String(16)),
    Column("container_format", String(16)),
    Column("min_disk", Integer, nullable=False, default=0),
    Column("min_ram", Integer, nullable=False, default=0),
    Column("size", BigInteger),
    Column("virtual_size", BigInteger),
    Column("checksum", String(32)),
    Column("os_hash_algo", String(16)),
    Column("os_hash_value", String(128)),
    Column("host_id", String(63)),
    Column("tags", JSON, nullable=False),
    Column("attention", Text),
    *times(),
    *soft_delete(),
    partial("ix_images_live_owner", "owner", "created_at", "id", where="NOT deleted"),
)

image_properties = Table(
    "image_properties",
    metadata,
    Column("image_id", String(36), ForeignKey("images.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)
