"""QoS specs, default types of projects, transfers; indexes for lists that are filtered.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    _qos()
    _default_types()
    _transfers()
    _indexes()


def _qos() -> None:
    op.create_table(
        "qos_specs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("consumer", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_qos_specs")),
        sa.UniqueConstraint("name", name=op.f("uq_qos_specs_name")),
    )
    op.create_table(
        "qos_spec_values",
        sa.Column("qos_specs_id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["qos_specs_id"], ["qos_specs.id"], name=op.f("fk_qos_spec_values_qos_specs_id")),
        sa.PrimaryKeyConstraint("qos_specs_id", "key", name=op.f("pk_qos_spec_values")),
    )


def _default_types() -> None:
    op.create_table(
        "default_types",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("volume_type_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["volume_type_id"], ["volume_types.id"], name=op.f("fk_default_types_volume_type_id")),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_default_types")),
    )


def _transfers() -> None:
    op.create_table(
        "transfers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("no_snapshots", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("source_project_id", sa.String(length=64), nullable=False),
        sa.Column("destination_project_id", sa.String(length=64), nullable=True),
        sa.Column("accepted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=True),
        sa.Column("deleted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name=op.f("fk_transfers_volume_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfers")),
    )
    _index("uq_transfers_live_volume", "transfers", "volume_id", unique=True)
    _index("ix_transfers_live_project", "transfers", "source_project_id", "created_at", "id")
    _index("ix_transfers_live_all", "transfers", "created_at", "id")


def _indexes() -> None:
    _index("ix_volumes_live_name", "volumes", "name")
    _index("ix_volumes_live_type", "volumes", "volume_type_id")
    _index("ix_snapshots_live_all", "snapshots", "created_at", "id")
    _index("ix_snapshots_live_name", "snapshots", "name")
    _index("ix_attachments_live_all", "attachments", "created_at", "id")
    _index("ix_attachments_live_instance", "attachments", "instance_id")
    with_key = "AND encryption_key_id IS NOT NULL"
    _index("ix_volumes_live_key", "volumes", "encryption_key_id", more=with_key)
    _index("ix_snapshots_live_key", "snapshots", "encryption_key_id", more=with_key)


def _index(name: str, table: str, *columns: str, unique: bool = False, more: str = "") -> None:
    """Over rows that are not deleted; SQLite wants the condition word by word as queries have it."""
    op.create_index(
        name, table, list(columns), unique=unique, sqlite_where=sa.text(f"deleted = 0 {more}".strip()),
        postgresql_where=sa.text(f"NOT deleted {more}".strip()),
    )  # fmt: skip
