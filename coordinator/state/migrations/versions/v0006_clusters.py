"""Back ends that several hosts serve.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    op.create_table(
        "clusters",
        sa.Column("name", sa.String(length=127), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("disabled_reason", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_clusters")),
    )
    op.add_column("pools", sa.Column("cluster_name", sa.String(length=127), nullable=True))
    op.add_column("volumes", sa.Column("cluster_name", sa.String(length=127), nullable=True))
    op.create_index("ix_pools_host", "pools", ["host_id"])
    _partial("ix_pools_cluster", "pools", "cluster_name IS NOT NULL", "cluster_name IS NOT NULL")
    known = "AND cluster_name IS NOT NULL"
    _partial("ix_volumes_live_cluster", "volumes", f"deleted = 0 {known}", f"NOT deleted {known}")


def _partial(name: str, table: str, sqlite: str, postgresql: str) -> None:
    op.create_index(name, table, ["cluster_name"], sqlite_where=sa.text(sqlite), postgresql_where=sa.text(postgresql))
