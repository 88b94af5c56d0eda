"""What is told of changes to volume types and QoS specs, in the words that Cinder's notifications have for them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row

from coordinator.api.acting import site_changed
from coordinator.api.call import Call
from coordinator.state import qos, types
from coordinator.state.tables.columns import utcnow

_TYPE = ("id", "name", "description", "is_public", "qos_specs_id", "created_at", "updated_at")


def type_changed(conn: Connection, call: Call, verb: str, row: Row[Any]) -> None:
    """A type was made or changed, or is about to be deleted."""
    known = {name: _plain(getattr(row, name)) for name in _TYPE}
    told = {"volume_types": {**known, "extra_specs": types.extra_specs(conn, row.id)}}
    site_changed(conn, call, ("volume_type", row.id), f"volume_type.{verb}", told)


def specs_changed(conn: Connection, call: Call, verb: str, type_id: str, what: Mapping[str, Any]) -> None:
    """`what` is `specs` where several were set, `id` (a key) where one was set or deleted."""
    row = types.get(conn, type_id)
    told = {"type_id": type_id, **what, "created_at": _plain(row.created_at), "updated_at": _plain(row.updated_at)}
    site_changed(conn, call, ("volume_type", type_id), f"volume_type_extra_specs.{verb}", told)


def access_changed(conn: Connection, call: Call, verb: str, type_id: str, project_id: str) -> None:
    told = {"volume_type_id": type_id, "project_id": project_id}
    site_changed(conn, call, ("volume_type", type_id), f"volume_type_project.access.{verb}", told)


def encryption_changed(conn: Connection, call: Call, verb: str, type_id: str, what: Mapping[str, Any]) -> None:
    site_changed(conn, call, ("volume_type", type_id), f"volume_type_encryption.{verb}", {"type_id": type_id, **what})


def metadata_changed(conn: Connection, call: Call, verb: str, type_id: str, what: Mapping[str, Any]) -> None:
    """A Cinder has no word for it: its types have none."""
    site_changed(conn, call, ("volume_type", type_id), f"volume_type_metadata.{verb}", {"type_id": type_id, **what})


def qos_changed(conn: Connection, call: Call, verb: str, qos_id: str, what: Mapping[str, Any]) -> None:
    """Called while they are still there."""
    found, at = qos.get(conn, qos_id), utcnow().isoformat()
    stamp = {"create": "created_at", "delete": "deleted_at"}.get(verb, "updated_at")
    told = {"id": qos_id, "name": found.name, **what, stamp: at}
    site_changed(conn, call, ("qos_specs", qos_id), f"qos_specs.{verb}", told)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.datetime) else value
