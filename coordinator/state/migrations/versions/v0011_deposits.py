"""Keys that are deposited at a key manager.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.add_column("secrets", sa.Column("deposit_name", sa.String(length=64), nullable=True))
    op.add_column("secrets", sa.Column("external", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "key_removals",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_key_removals")),
    )
