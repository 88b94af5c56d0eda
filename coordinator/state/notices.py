"""What an event says of its resource: the row as it is in the event's transaction."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, bindparam, select

from coordinator.state.json_rows import pairs_column, pairs_in
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.snapshots import snapshot_metadata, snapshots
from coordinator.state.tables.volumes import volume_metadata, volumes

_VOLUME = (
    "id", "name", "size", "status", "availability_zone", "volume_type_id", "snapshot_id", "source_volid", "image_id",
    "bootable", "multiattach", "created_at", "launched_at", "user_id",
)  # fmt: skip
_SNAPSHOT = ("id", "name", "volume_id", "volume_size", "status", "created_at", "user_id")
_ATTACHMENT = ("id", "volume_id", "instance_id", "attached_host", "attach_mode", "attach_status", "owner", "mountpoint")


def _of(table: Table, names: tuple[str, ...], *more: Any) -> Select[Any]:
    """Few columns: it runs with every event."""
    return select(*(table.c[name] for name in names), *more).where(table.c.id == bindparam("wanted"))


_READ: dict[str, tuple[Select[Any], Callable[[Row[Any]], dict[str, Any]]]] = {
    "volume": (
        _of(volumes, (*_VOLUME, "pool_id", "encryption_key_id"),
            pairs_column(volume_metadata, "volume_id", volumes.c.id).label("pairs")),
        lambda row: {
            **_picked(row, _VOLUME), "host": row.pool_id, "encrypted": row.encryption_key_id is not None,
            "metadata": pairs_in(row.pairs),
        },
    ),
    "snapshot": (
        _of(snapshots, _SNAPSHOT, pairs_column(snapshot_metadata, "snapshot_id", snapshots.c.id).label("pairs")),
        lambda row: {**_picked(row, _SNAPSHOT), "metadata": pairs_in(row.pairs)},
    ),
    "attachment": (_of(attachments, _ATTACHMENT), lambda row: _picked(row, _ATTACHMENT)),
}  # fmt: skip


def facts(conn: Connection, resource_type: str, resource_id: str) -> dict[str, Any]:
    """`{"volume": {...}}`; a snapshot or attachment with its volume. Empty for what has no row, and for other kinds."""
    if resource_type not in _READ:
        return {}
    query, told = _READ[resource_type]
    row = conn.execute(query, {"wanted": resource_id}).one_or_none()
    if row is None:
        return {}
    volume = facts(conn, "volume", row.volume_id) if resource_type != "volume" else {}
    return {resource_type: told(row), **volume}


def _picked(row: Row[Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.datetime) else value
