"""Volume types, their extra specs, encryption and the projects that may see private ones."""

from sqlalchemy import Boolean, Column, ForeignKey, Integer, String, Table, Text, true

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, partial, soft_delete, times

volume_types = Table(
    "volume_types",
    metadata,
    id_column(),
    Column("name", String(255), nullable=False),
    Column("description", String(255)),
    Column("is_public", Boolean, nullable=False, default=True, server_default=true()),
    Column("qos_specs_id", String(36)),
    *times(),
    *soft_delete(),
    partial("uq_volume_types_live_name", "name", unique=True, where="NOT deleted"),
)

type_extra_specs = Table(
    "type_extra_specs",
    metadata,
    Column("volume_type_id", String(36), ForeignKey("volume_types.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)

type_metadata = Table(
    "type_metadata",
    metadata,
    Column("volume_type_id", String(36), ForeignKey("volume_types.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", String(255), nullable=False),
)
"""What users are told of a type; no back end is chosen by it."""

type_encryption = Table(
    "type_encryption",
    metadata,
    Column("volume_type_id", String(36), ForeignKey("volume_types.id"), primary_key=True),
    Column("encryption_id", String(36), nullable=False),
    Column("provider", String(255), nullable=False),
    Column("cipher", String(255)),
    Column("key_size", Integer),
    Column("control_location", String(16), nullable=False, default="front-end"),
    *times(),
)

type_access = Table(
    "type_access",
    metadata,
    Column("volume_type_id", String(36), ForeignKey("volume_types.id"), primary_key=True),
    Column("project_id", String(64), primary_key=True),
)

default_types = Table(
    "default_types",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("volume_type_id", String(36), ForeignKey("volume_types.id"), nullable=False),
)
"""The type of volumes whose creator names none, where a project has its own."""
