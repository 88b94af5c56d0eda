"""Attachments that reach a volume over a transport between hosts.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Three columns that older rows leave empty."""
    op.add_column("attachments", sa.Column("transport", sa.String(length=32)))
    op.add_column("attachments", sa.Column("initiator", sa.String(length=223)))
    op.add_column("attachments", sa.Column("connection", sa.JSON()))
