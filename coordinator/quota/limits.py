"""Limits of a project: its own rows, else the default class, else the shipped defaults. -1 means no limit."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, select

from agent.base.errors import Invalid
from coordinator.quota.errors import GigabytesLimit, OverQuota, SnapshotLimit, VolumeLimit, VolumeSizeLimit
from coordinator.quota.usage import used
from coordinator.state.locks import hold_name
from coordinator.state.tables.quotas import quota_limits
from coordinator.state.tables.types import volume_types

UNLIMITED = -1
_LIMITS = select(quota_limits.c.resource, quota_limits.c.hard_limit).where(
    quota_limits.c.project_id == bindparam("project")
)
DEFAULT_CLASS = "class:default"
SHIPPED: dict[str, int] = {
    "volumes": 10,
    "snapshots": 10,
    "gigabytes": 1000,
    "per_volume_gigabytes": UNLIMITED,
    "backups": 10,
    "backup_gigabytes": 1000,
    "groups": 10,
}
_PER_TYPE = ("volumes", "gigabytes", "snapshots")
_ERRORS: dict[str, type[OverQuota]] = {
    "volumes": VolumeLimit,
    "snapshots": SnapshotLimit,
    "gigabytes": GigabytesLimit,
}


def limits(conn: Connection, project_id: str) -> dict[str, int]:
    """Every resource with its limit for this project, the per-type ones (`volumes_TYPE`, …) included."""
    return {**_type_defaults(conn), **SHIPPED, **_rows(conn, DEFAULT_CLASS), **_rows(conn, project_id)}


def defaults(conn: Connection) -> dict[str, int]:
    """What a project has that was never changed."""
    return {**_type_defaults(conn), **SHIPPED, **_rows(conn, DEFAULT_CLASS)}


def put(conn: Connection, project_id: str, values: dict[str, int]) -> None:
    """Set limits of a project (or of `class:NAME`); raises Invalid for unknown resources or numbers below -1."""
    known = defaults(conn)
    for resource, limit in values.items():
        if resource not in known:
            raise Invalid(reason=f"Bad key(s) in quota set: {resource}")
        if limit < UNLIMITED:
            raise Invalid(reason=f"Quota limit {limit} for {resource} must be -1 or more.")
    table = quota_limits
    conn.execute(delete(table).where(table.c.project_id == project_id, table.c.resource.in_(values)))
    rows = [{"project_id": project_id, "resource": name, "hard_limit": limit} for name, limit in values.items()]
    if rows:
        conn.execute(table.insert(), rows)


def reset(conn: Connection, project_id: str) -> None:
    """Back to the defaults."""
    conn.execute(delete(quota_limits).where(quota_limits.c.project_id == project_id))


def check(
    conn: Connection, project_id: str, type_name: str | None, *, volumes: int = 0, snapshots: int = 0,
    gigabytes: int = 0, volume_size: int | None = None
) -> None:  # fmt: skip
    """Raise the error of the first limit that these additions would pass; call it in the spending transaction."""
    hold_name(conn, f"quota:{project_id}")
    allowed = _rows(conn, project_id)
    site = {**SHIPPED, **_rows(conn, DEFAULT_CLASS)}
    limit = allowed.get("per_volume_gigabytes", site["per_volume_gigabytes"])
    if volume_size is not None and 0 <= limit < volume_size:
        raise VolumeSizeLimit(resource="per_volume_gigabytes", requested=volume_size, limit=limit, used=0)
    usage = used(conn, project_id)
    for resource, more in (("volumes", volumes), ("snapshots", snapshots), ("gigabytes", gigabytes)):
        if more <= 0:
            continue
        names = [resource] if type_name is None else [resource, f"{resource}_{type_name}"]
        for name in names:
            limit = allowed.get(name, site.get(name, UNLIMITED))
            now = usage.get(name, 0)
            if limit != UNLIMITED and now + more > limit:
                raise _ERRORS[resource](resource=name, requested=more, used=now, limit=limit)


def check_type(conn: Connection, project_id: str, type_name: str, **more: int) -> None:
    """Like `check` for what a project has already and now counts to another type: only that type's own limits."""
    allowed = {**_rows(conn, DEFAULT_CLASS), **_rows(conn, project_id)}
    usage = used(conn, project_id)
    for resource, amount in more.items():
        name = f"{resource}_{type_name}"
        limit, now = allowed.get(name, UNLIMITED), usage.get(name, 0)
        if limit != UNLIMITED and now + amount > limit:
            raise _ERRORS[resource](resource=name, requested=amount, used=now, limit=limit)


def _rows(conn: Connection, project_id: str) -> dict[str, int]:
    found = conn.execute(_LIMITS, {"project": project_id})
    return {row.resource: row.hard_limit for row in found}


def _type_defaults(conn: Connection) -> dict[str, int]:
    names = conn.execute(select(volume_types.c.name).where(~volume_types.c.deleted)).scalars().all()
    return {f"{resource}_{name}": UNLIMITED for name in names for resource in _PER_TYPE}
