"""What the scheduler is asked about a volume: the same request for every call that takes space or changes its type."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from coordinator.scheduler.request import Purpose, Request
from coordinator.state import qos, types


def about(
    conn: Connection,
    row: Row[Any],
    purpose: Purpose,
    device_bytes: int,
    *,
    type_id: str | None,
    size: int | None = None,
) -> Request:
    """`device_bytes` is what is asked for beside what the volume has; `size` what it then has in all, in GiB."""
    specs = types.extra_specs(conn, type_id) if type_id is not None else {}
    told = qos.of_type(conn, type_id)
    return Request(
        device_bytes=device_bytes,
        pool_id=row.pool_id,
        extra_specs=specs,
        purpose=purpose,
        volume={"size": row.size if size is None else size, "name": row.name or "", "project_id": row.project_id},
        qos=told.specs if told is not None else {},
    )
