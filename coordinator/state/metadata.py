"""Keys and values that hang on a volume, a snapshot or a type. Each change is one piece of the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, Table, delete, insert, select, update

from coordinator.state.errors import TooManyKeys
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.snapshots import snapshot_metadata, snapshots
from coordinator.state.tables.types import type_metadata, volume_types
from coordinator.state.tables.volumes import volume_admin_metadata, volume_image_metadata, volume_metadata, volumes

Kind = Literal["volume", "volume-admin", "volume-image", "snapshot", "type"]
_KINDS: dict[Kind, tuple[Table, str, Table]] = {
    "volume": (volume_metadata, "volume_id", volumes),
    "volume-admin": (volume_admin_metadata, "volume_id", volumes),
    "volume-image": (volume_image_metadata, "volume_id", volumes),
    "snapshot": (snapshot_metadata, "snapshot_id", snapshots),
    "type": (type_metadata, "volume_type_id", volume_types),
}


MOST_KEYS = 1000
"""Of one resource and kind; what shows a list reads them all."""


def read(conn: Connection, kind: Kind, owner_id: str) -> dict[str, str]:
    """All of one resource, sorted by key."""
    table, column, _ = _KINDS[kind]
    query = select(table.c.key, table.c.value).where(table.c[column] == owner_id).order_by(table.c.key)
    return {row.key: row.value for row in conn.execute(query)}


def merge(conn: Connection, kind: Kind, owner_id: str, values: Mapping[str, str]) -> dict[str, str]:
    """Add or overwrite these keys; returns all that there is now. TooManyKeys."""
    _remove(conn, kind, owner_id, values)
    _add(conn, kind, owner_id, values)
    found = read(conn, kind, owner_id)
    if len(found) > MOST_KEYS:
        raise TooManyKeys(count=len(found), most=MOST_KEYS)
    return found


def replace(conn: Connection, kind: Kind, owner_id: str, values: Mapping[str, str]) -> dict[str, str]:
    """Leave exactly these keys."""
    table, column, _ = _KINDS[kind]
    conn.execute(delete(table).where(table.c[column] == owner_id))
    _add(conn, kind, owner_id, values)
    return read(conn, kind, owner_id)


def remove(conn: Connection, kind: Kind, owner_id: str, key: str) -> bool:
    """Remove one key; False when it was not there."""
    return _remove(conn, kind, owner_id, {key: ""}) > 0


def _remove(conn: Connection, kind: Kind, owner_id: str, keys: Mapping[str, Any]) -> int:
    table, column, _ = _KINDS[kind]
    _touch(conn, kind, owner_id)
    return conn.execute(delete(table).where(table.c[column] == owner_id, table.c.key.in_(list(keys)))).rowcount


def _add(conn: Connection, kind: Kind, owner_id: str, values: Mapping[str, str]) -> None:
    table, column, _ = _KINDS[kind]
    _touch(conn, kind, owner_id)
    if values:
        conn.execute(insert(table), [{column: owner_id, "key": key, "value": value} for key, value in values.items()])


def _touch(conn: Connection, kind: Kind, owner_id: str) -> None:
    """Changes its row, so that two writers of one resource follow each other on every database."""
    owner = _KINDS[kind][2]
    conn.execute(update(owner).where(owner.c.id == owner_id).values(updated_at=utcnow()))
