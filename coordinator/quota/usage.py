"""Usage, computed from live rows. There is no counter that could drift, and so no command to repair one."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, select

from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.types import volume_types
from coordinator.state.tables.volumes import volumes

Usage = dict[str, int]

# Built once: putting a statement together costs as much as running it, and these run in every create.
_VOLUMES = (
    select(volume_types.c.name, func.count(), func.sum(volumes.c.size + volumes.c.reserved_size))
    .select_from(volumes.outerjoin(volume_types, volume_types.c.id == volumes.c.volume_type_id))
    .where(volumes.c.project_id == bindparam("project"), ~volumes.c.deleted, volumes.c.use_quota)
    .group_by(volume_types.c.name)
)
_SNAPSHOTS = (
    select(volume_types.c.name, func.count(), func.sum(snapshots.c.volume_size))
    .select_from(snapshots.outerjoin(volume_types, volume_types.c.id == snapshots.c.volume_type_id))
    .where(snapshots.c.project_id == bindparam("project"), ~snapshots.c.deleted, snapshots.c.use_quota)
    .group_by(volume_types.c.name)
)


def used(conn: Connection, project_id: str) -> Usage:
    """What a project uses, per resource: `volumes`, `gigabytes`, `snapshots`, each also as `NAME_TYPE`.

    One grouped query per noun over a covering partial index. Snapshots count towards gigabytes,
    and so does what an extend under way has reserved.
    """
    usage: Usage = {"volumes": 0, "gigabytes": 0, "snapshots": 0}
    for name, count, size in conn.execute(_VOLUMES, {"project": project_id}):
        _add(usage, "volumes", name, count)
        _add(usage, "gigabytes", name, size)
    for name, count, size in conn.execute(_SNAPSHOTS, {"project": project_id}):
        _add(usage, "snapshots", name, count)
        _add(usage, "gigabytes", name, size)
    return usage


def _add(usage: Usage, resource: str, type_name: str | None, amount: int) -> None:
    usage[resource] = usage.get(resource, 0) + int(amount)
    if type_name is not None:
        key = f"{resource}_{type_name}"
        usage[key] = usage.get(key, 0) + int(amount)
