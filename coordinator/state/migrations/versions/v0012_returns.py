"""What was taken from hosts that came back.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.add_column("evictions", sa.Column("cleared_at", sa.DateTime(), nullable=True))
    op.add_column("evictions", sa.Column("taken", sa.JSON(), nullable=True))
