"""Images that were registered at an image service outside, with the keys that were cloned for them.

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.create_table(
        "registered_images",
        sa.Column("image_id", sa.String(length=36), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=True),
        sa.Column("operation_id", sa.String(length=36), nullable=True),
        sa.Column("looked_at", sa.DateTime(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("image_id", name="pk_registered_images"),
    )
    op.create_index("ix_registered_images_key", "registered_images", ["key_id"])
    op.create_index("ix_registered_images_looked", "registered_images", ["looked_at"])
