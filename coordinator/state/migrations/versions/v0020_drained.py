"""Hosts that are drained: since when.

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.add_column("hosts", sa.Column("drained_at", sa.DateTime(), nullable=True))
