"""What an event says of its resource: the row as it is in the event's transaction."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, bindparam, select

from coordinator.state.json_rows import pairs_column, pairs_in
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.snapshots import snapshot_metadata, snapshots
from coordinator.state.tables.volumes import volume_metadata, volumes
from coordinator.state.together import known

_VOLUME = (
    "id", "name", "size", "status", "availability_zone", "volume_type_id", "snapshot_id", "source_volid", "image_id",
    "bootable", "multiattach", "created_at", "launched_at", "user_id",
)  # fmt: skip
_SNAPSHOT = ("id", "name", "volume_id", "volume_size", "status", "created_at", "user_id")
_ATTACHMENT = ("id", "volume_id", "instance_id", "attached_host", "attach_mode", "attach_status", "owner", "mountpoint")


def _of(table: Table, names: tuple[str, ...], *more: Any) -> Select[Any]:
    """Few columns: it runs with every event."""
    return select(*(table.c[name] for name in names), *more).where(table.c.id == bindparam("wanted"))


def _volume(row: Row[Any], pairs: Mapping[str, str] | None) -> dict[str, Any]:
    where = {"host": row.pool_id, "encrypted": row.encryption_key_id is not None}
    return {**_picked(row, _VOLUME), **where, "metadata": pairs}


_READ: dict[str, tuple[Select[Any], Callable[[Row[Any]], dict[str, Any]]]] = {
    "volume": (
        _of(volumes, (*_VOLUME, "pool_id", "encryption_key_id"),
            pairs_column(volume_metadata, "volume_id", volumes.c.id).label("pairs")),
        lambda row: _volume(row, pairs_in(row.pairs)),
    ),
    "snapshot": (
        _of(snapshots, _SNAPSHOT, pairs_column(snapshot_metadata, "snapshot_id", snapshots.c.id).label("pairs")),
        lambda row: {**_picked(row, _SNAPSHOT), "metadata": pairs_in(row.pairs)},
    ),
    "attachment": (_of(attachments, _ATTACHMENT), lambda row: _picked(row, _ATTACHMENT)),
}  # fmt: skip


def facts(conn: Connection, resource_type: str, resource_id: str) -> dict[str, Any]:
    """`{"volume": {...}}`; a snapshot or attachment with its volume. Empty for what has no row, and for other kinds.

    `complete` is to follow.
    """
    if resource_type not in _READ:
        return {}
    if resource_type == "volume" and (noted := known(conn, ("volume", resource_id))) is not None:
        return {"volume": _volume(noted, known(conn, ("volume-metadata", resource_id)))}
    query, told = _READ[resource_type]
    row = conn.execute(query, {"wanted": resource_id}).one_or_none()
    if row is None:
        return {}
    volume = facts(conn, "volume", row.volume_id) if resource_type != "volume" else {}
    return {resource_type: told(row), **volume}


def complete(conn: Connection, told: Sequence[dict[str, Any]]) -> None:
    """Read, for all at once, the metadata of volumes whose rows were known and had not to be read."""
    lacking = [facts["volume"] for facts in told if "volume" in facts and facts["volume"]["metadata"] is None]
    if not lacking:
        return
    found: dict[str, dict[str, str]] = {volume["id"]: {} for volume in lacking}
    for row in conn.execute(select(volume_metadata).where(volume_metadata.c.volume_id.in_(found))):
        found[row.volume_id][row.key] = row.value
    for volume in lacking:
        volume["metadata"] = found[volume["id"]]


def _picked(row: Row[Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.datetime) else value
