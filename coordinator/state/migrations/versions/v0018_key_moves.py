"""Which key manager a key lies at, and which it is on its way to.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.add_column("secrets", sa.Column("manager", sa.String(length=16), nullable=True))
    op.add_column("secrets", sa.Column("moving_to", sa.String(length=16), nullable=True))
    op.add_column("secrets", sa.Column("moving_name", sa.String(length=64), nullable=True))
    op.add_column("key_removals", sa.Column("manager", sa.String(length=16), nullable=True))
