"""What users are told of volume types; the past offers of a volume are found by it.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.create_table(
        "type_metadata",
        sa.Column("volume_type_id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["volume_type_id"], ["volume_types.id"], name=op.f("fk_type_metadata_volume_type_id_volume_types")
        ),
        sa.PrimaryKeyConstraint("volume_type_id", "key", name=op.f("pk_type_metadata")),
    )
    op.create_index("ix_transfers_volume", "transfers", ["volume_id", "created_at"])
