"""Which project lies below which, as the identity service said. It never changes there: what is known stays known."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, union

from coordinator.state.tables.quotas import quota_limits, quota_projects
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes


def known(conn: Connection, project_id: str) -> bool:
    return conn.execute(select(quota_projects).where(quota_projects.c.project_id == project_id)).first() is not None


def parent(conn: Connection, project_id: str) -> str | None:
    """None for a project that lies directly in its domain, and for one that is not known."""
    query = select(quota_projects.c.parent_id).where(quota_projects.c.project_id == project_id)
    return conn.execute(query).scalar_one_or_none()


def ancestors(conn: Connection, project_id: str) -> list[str]:
    """The nearest first."""
    found: list[str] = []
    while (above := parent(conn, found[-1] if found else project_id)) is not None and above not in found:
        found.append(above)
    return found


def children(conn: Connection, project_id: str) -> Sequence[str]:
    """Those directly below, as far as they are known."""
    query = select(quota_projects.c.project_id).where(quota_projects.c.parent_id == project_id)
    return conn.execute(query.order_by(quota_projects.c.project_id)).scalars().all()


def parents(conn: Connection) -> Sequence[str]:
    """All projects that others are known to lie below."""
    query = select(quota_projects.c.parent_id).where(quota_projects.c.parent_id.is_not(None)).distinct()
    return [str(one) for one in conn.execute(query.order_by(quota_projects.c.parent_id)).scalars()]


def learn(conn: Connection, project_id: str, above: Sequence[str]) -> None:
    """Note a project and all above it, the nearest first."""
    chain = [project_id, *above]
    for child, over in zip(chain, [*above, None], strict=True):
        if not known(conn, child):
            conn.execute(insert(quota_projects).values(project_id=child, parent_id=over))


def strangers(conn: Connection) -> list[str]:
    """Projects that have something, or limits of their own, and are not known."""
    having = union(
        select(volumes.c.project_id).where(~volumes.c.deleted),
        select(snapshots.c.project_id).where(~snapshots.c.deleted),
        select(quota_limits.c.project_id).where(quota_limits.c.project_id.not_like("class:%")),
    )
    found = set(conn.execute(having).scalars())
    return sorted(found - set(conn.execute(select(quota_projects.c.project_id)).scalars()))
