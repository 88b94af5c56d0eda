"""What depends on a host, by kind: the one list that evicting and draining tell of, each in its own words."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, select

from coordinator.state import operations
from coordinator.state.operations import Operation
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.images import images
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes

_ALL = 1_000_000
VOLUMES, SNAPSHOTS, IMAGES = "volumes", "snapshots", "images"
KEPT_BY_IT, ELSEWHERE = "attachments kept by it", "attachments of its volumes elsewhere"
KEPT_BY_OTHERS = "attachments there, kept by others"


def of_host(conn: Connection, host_id: str) -> dict[str, tuple[str, ...]]:
    """The ids of what lies there or is attached there, by the words above."""
    live = select(attachments.c.id).where(~attachments.c.deleted)
    by_us = attachments.c.owner == "agent"
    its_volumes = select(volumes.c.id).where(volumes.c.host_id == host_id, ~volumes.c.deleted)
    its_snapshots = select(snapshots.c.id).where(snapshots.c.volume_id.in_(its_volumes), ~snapshots.c.deleted)
    its_images = select(images.c.id).where(images.c.host_id == host_id, ~images.c.deleted)
    elsewhere = live.where(attachments.c.volume_id.in_(its_volumes), attachments.c.attached_host != host_id)
    return {
        VOLUMES: _ids(conn, its_volumes),
        SNAPSHOTS: _ids(conn, its_snapshots),
        IMAGES: _ids(conn, its_images),
        KEPT_BY_IT: _ids(conn, live.where(by_us, attachments.c.host_id == host_id)),
        ELSEWHERE: _ids(conn, elsewhere),
        KEPT_BY_OTHERS: _ids(conn, live.where(~by_us, attachments.c.attached_host == host_id)),
    }


def working(conn: Connection, host_id: str) -> list[Operation]:
    """Operations that have given a job to the host which has not ended, or wait to."""
    return [found for found in active(conn) if _there(found.steps, host_id)]


def active(conn: Connection) -> list[Operation]:
    """All work of the site."""
    return operations.listing(conn, active=True, limit=_ALL)


def _there(steps: dict[str, Any], host_id: str) -> bool:
    return any(step.get("host") == host_id for step in steps.values() if step.get("state") != "done")


def _ids(conn: Connection, query: Select[tuple[Any]]) -> tuple[str, ...]:
    return tuple(sorted(conn.execute(query).scalars()))
