"""Limits as they are written down or shipped: a project's own rows, else the default class, else what is shipped."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from coordinator.state import hierarchy
from coordinator.state.tables.quotas import quota_limits
from coordinator.state.usage import rules

UNLIMITED = -1
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
APART = frozenset({"per_volume_gigabytes"})
"""What says something of each volume is no amount that could be shared out in a tree of projects."""
_ROWS = select(quota_limits.c.project_id, quota_limits.c.resource, quota_limits.c.hard_limit)
_LIMITS = _ROWS.where(quota_limits.c.project_id == bindparam("project"))
_BOTH = _ROWS.where(quota_limits.c.project_id.in_([bindparam("project"), bindparam("site")]))


def rows(conn: Connection, project_id: str) -> dict[str, int]:
    """What is written down for a project, or for `class:NAME`."""
    found = conn.execute(_LIMITS, {"project": project_id})
    return {row.resource: row.hard_limit for row in found}


def written(conn: Connection, project_id: str) -> dict[str, int]:
    """What is written down for the project, else for all."""
    found = conn.execute(_BOTH, {"project": project_id, "site": DEFAULT_CLASS}).all()
    ordered = sorted(found, key=lambda row: bool(row.project_id == project_id))
    return {row.resource: row.hard_limit for row in ordered}


def _below(conn: Connection, project_id: str) -> bool:
    """Whether it lies below another project, and that counts."""
    return rules(conn).nested and hierarchy.parent(conn, project_id) is not None


def first(conn: Connection, project_id: str | None = None) -> dict[str, int]:
    """What a project has that was never changed: one that lies below another (where that counts) is given nothing.

    Of types only what the default class limits; a project below another has of them what that one has.
    """
    found = {**SHIPPED, **rows(conn, DEFAULT_CLASS)}
    if project_id is None or not _below(conn, project_id):
        return found
    return {name: found[name] if name in APART else 0 for name in SHIPPED}


def own(conn: Connection, project_id: str) -> dict[str, int]:
    """All limits of a project; a resource that is not named has none."""
    if _below(conn, project_id):
        return {**first(conn, project_id), **rows(conn, project_id)}
    return {**SHIPPED, **written(conn, project_id)}
