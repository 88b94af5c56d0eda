"""The indexes of volumes that are bootable, or for several servers, begin with that: else SQLite walks all by age.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it."""
    for column in ("bootable", "multiattach"):
        op.drop_index(f"ix_volumes_live_{column}", table_name="volumes")
        op.create_index(
            f"ix_volumes_live_{column}", "volumes", [column, "created_at", "id"],
            sqlite_where=sa.text(f"deleted = 0 AND {column} = 1"), postgresql_where=sa.text(f"NOT deleted AND {column}"),
        )  # fmt: skip
