"""Sums of what projects use, for sites that keep them; indexes that hold all that counting asks for.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.create_table(
        "quota_usages",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("volume_type_id", sa.String(length=36), nullable=False),
        sa.Column("volumes", sa.Integer(), nullable=False),
        sa.Column("gigabytes", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("snapshots", sa.Integer(), nullable=False),
        sa.Column("snapshot_gigabytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "volume_type_id", name=op.f("pk_quota_usages")),
    )
    op.drop_index("ix_volumes_live_quota", table_name="volumes")
    _index("volumes", "project_id", "volume_type_id", "size", "reserved_size")
    _index("snapshots", "project_id", "volume_type_id", "volume_size")


def _index(table: str, *columns: str) -> None:
    op.create_index(
        f"ix_{table}_live_quota", table, [*columns, "deleted", "use_quota"],
        sqlite_where=sa.text("deleted = 0 AND use_quota = 1"), postgresql_where=sa.text("NOT deleted AND use_quota"),
    )  # fmt: skip
