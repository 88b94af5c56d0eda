"""Rows of what was deleted, moved out of the tables that are worked with.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.create_table(
        "archive",
        sa.Column("of_table", sa.String(length=63), nullable=False),
        sa.Column("row_key", sa.String(length=100), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(), nullable=False),
        sa.Column("archived_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("of_table", "row_key", name=op.f("pk_archive")),
    )
    op.create_index("ix_archive_deleted", "archive", ["deleted_at"])
