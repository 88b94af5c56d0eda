"""Indexes for what lists are filtered by, which find the page in its order; SQLite uses those of 0001 at last.

Revision ID: 0014
Revises: 0013
"""

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

Indexes = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Columns by table and name."""

_PAGE = ("created_at", "id")
# What has other columns now.
_CHANGED: Indexes = {
    "volumes": {
        "live_host": ("host_id", *_PAGE), "live_name": ("name", "project_id", *_PAGE),
        "live_type": ("volume_type_id", *_PAGE),
    },
    "snapshots": {"live_volume": ("volume_id", "project_id", *_PAGE), "live_name": ("name", "project_id", *_PAGE)},
    "attachments": {
        "live_volume": ("volume_id", "project_id", *_PAGE), "live_instance": ("instance_id", "project_id", *_PAGE),
    },
}  # fmt: skip
_NEW: Indexes = {
    "volumes": {
        "live_status": ("status", *_PAGE), "live_project_status": ("project_id", "status", *_PAGE),
        "live_zone": ("availability_zone", *_PAGE), "live_user": ("user_id", "project_id", *_PAGE),
    },
    "snapshots": {"live_status": ("status", *_PAGE)},
    "attachments": {"live_status": ("attach_status", *_PAGE)},
}  # fmt: skip
# Of few rows only.
_GIVEN = ("snapshot_id", "source_volid", "group_id", "migration_status")
_TRUE = ("bootable", "multiattach")
# Made with a condition that SQLite did not find in any query: it wants it word by word, and is asked with numbers.
_NEVER_USED: Indexes = {
    "volumes": {"live_all": _PAGE, "live_project": ("project_id", *_PAGE)},
    "snapshots": {"live_project": ("project_id", *_PAGE)},
    "attachments": {"live_project": ("project_id", *_PAGE)},
    "images": {"live_owner": ("owner", *_PAGE)},
}


def upgrade() -> None:
    """Additive: the release before works on with it."""
    for table, found in _CHANGED.items():
        for name, columns in found.items():
            op.drop_index(f"ix_{table}_{name}", table_name=table)
            _index(f"ix_{table}_{name}", table, *columns)
    for table, found in _NEW.items():
        for name, columns in found.items():
            _index(f"ix_{table}_{name}", table, *columns)
    for column in _GIVEN:
        _index(f"ix_volumes_live_{column}", "volumes", column, "project_id", *_PAGE, more=f"AND {column} IS NOT NULL")
    for column in _TRUE:
        _index(f"ix_volumes_live_{column}", "volumes", *_PAGE, sqlite=f"AND {column} = 1", postgresql=f"AND {column}")
    if op.get_bind().dialect.name == "sqlite":
        _use()


def _use() -> None:
    for table, found in _NEVER_USED.items():
        for name, columns in found.items():
            op.drop_index(f"ix_{table}_{name}", table_name=table)
            _index(f"ix_{table}_{name}", table, *columns)
    op.drop_index("ix_volumes_busy", table_name="volumes")
    _index("ix_volumes_busy", "volumes", "status", more="AND status NOT IN ('available', 'in-use')")
    op.drop_index("uq_volume_types_live_name", table_name="volume_types")
    _index("uq_volume_types_live_name", "volume_types", "name", unique=True)


def _index(
    name: str, table: str, *columns: str, unique: bool = False, more: str = "", sqlite: str = "", postgresql: str = ""
) -> None:
    """Over rows that are not deleted."""
    op.create_index(
        name, table, list(columns), unique=unique, sqlite_where=sa.text(f"deleted = 0 {more or sqlite}".strip()),
        postgresql_where=sa.text(f"NOT deleted {more or postgresql}".strip()),
    )  # fmt: skip
