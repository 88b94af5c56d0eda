"""What lies on a back end, by project, as Block Storage's host calls tell it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, select

from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes


@dataclass(slots=True)
class Held:
    """Counts, and GiB as users see them."""

    volumes: int = 0
    volume_gb: int = 0
    snapshots: int = 0
    snapshot_gb: int = 0


def held(conn: Connection, host_id: str, backend: str | None) -> dict[str, Held]:
    """By project, of a whole host or of one of its back ends."""
    there = and_(volumes.c.host_id == host_id, ~volumes.c.deleted)
    if backend:
        there = and_(there, volumes.c.backend == backend)
    found: dict[str, Held] = {}
    query = select(volumes.c.project_id, func.count(), func.sum(volumes.c.size)).where(there)
    for project, count, size in conn.execute(query.group_by(volumes.c.project_id)):
        found[project] = Held(count, int(size))
    of_them = select(snapshots.c.project_id, func.count(), func.sum(snapshots.c.volume_size)).where(
        snapshots.c.volume_id.in_(select(volumes.c.id).where(there)), ~snapshots.c.deleted
    )
    for project, count, size in conn.execute(of_them.group_by(snapshots.c.project_id)):
        mine = found.setdefault(project, Held())
        mine.snapshots, mine.snapshot_gb = count, int(size)
    return found
