"""Back ends that are frozen.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.add_column("pools", sa.Column("frozen", sa.Boolean(), server_default=sa.false(), nullable=False))
