"""Events get positions in the order in which they can be seen; who is told of them, and how far.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Additive: the release before works on with it (its events get their positions from this one)."""
    op.add_column("events", sa.Column("position", sa.BigInteger(), nullable=True))
    op.create_table(
        "event_numbering",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_numbering")),
    )
    op.create_table(
        "event_consumers",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("failing_since", sa.DateTime(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_event_consumers")),
    )
    op.execute("UPDATE events SET position = seq")
    op.execute("INSERT INTO event_numbering (id, last) SELECT 1, MAX(seq) FROM events HAVING MAX(seq) IS NOT NULL")
    op.create_index("ix_events_position", "events", ["position"], unique=True)
    op.create_index("ix_events_project", "events", ["project_id", "position"])
    new = sa.text("position IS NULL")
    op.create_index("ix_events_new", "events", ["seq"], sqlite_where=new, postgresql_where=new)
