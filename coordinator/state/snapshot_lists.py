"""Reading snapshots and attachments for answers: pages of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, select

from coordinator.state.paging import Page, count_of, page_of
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.snapshots import snapshot_metadata, snapshots
from coordinator.state.tables.volumes import volumes
from coordinator.state.volume_lists import pairs


def _of(table: Any, project_id: str | None) -> ColumnElement[bool]:
    live: ColumnElement[bool] = ~table.c.deleted
    return live if project_id is None else and_(table.c.project_id == project_id, live)


def snapshot_page(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page
) -> Sequence[Row[Any]]:
    """Live snapshots of a project, or of all; raises NotFound for a marker outside of them."""
    mine = _of(snapshots, project_id)
    return page_of(conn, select(snapshots).where(mine, *where), snapshots, page, mine)


def snapshot_count(conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]]) -> int:
    return count_of(conn, select(snapshots.c.id).where(_of(snapshots, project_id), *where))


def snapshot_metadata_of(conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, dict[str, str]]:
    """Metadata by snapshot id."""
    return pairs(conn, snapshot_metadata, "snapshot_id", [row.id for row in rows])


def attachment_page(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page
) -> Sequence[Row[Any]]:
    """Live attachments of a project, or of all; raises NotFound for a marker outside of them."""
    mine = _of(attachments, project_id)
    return page_of(conn, select(attachments).where(mine, *where), attachments, page, mine)


def volumes_in_zone(zone: str) -> Any:
    """Ids of live volumes in an availability zone, for a condition on `volume_id`."""
    return select(volumes.c.id).where(volumes.c.availability_zone == zone, ~volumes.c.deleted)
