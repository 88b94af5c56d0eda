"""Issues: what is not as it should be, each with what to do about it. One open row per (code, resource)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from agent.base.errors import NotFound
from agent.base.ids import new_id
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import issues

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Issue:
    """`code` is stable and dotted; `sentence` says what is so, `remedy` the command that helps."""

    code: str
    resource_type: str
    resource_id: str
    sentence: str
    remedy: str
    host_id: str | None = None
    project_id: str | None = None
    request_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


def raise_issue(conn: Connection, issue: Issue) -> None:
    """Open the issue, or note that it still holds."""
    same = (
        issues.c.code == issue.code,
        issues.c.resource_type == issue.resource_type,
        issues.c.resource_id == issue.resource_id,
        issues.c.closed_at.is_(None),
    )
    now = utcnow()
    seen = update(issues).where(*same).values(last_seen=now, sentence=issue.sentence, details=issue.details)
    if conn.execute(seen).rowcount == 0:
        values = {name: getattr(issue, name) for name in Issue.__dataclass_fields__}
        conn.execute(insert(issues).values(id=new_id(), first_seen=now, last_seen=now, **values))


def is_open(conn: Connection, code: str, resource_id: str) -> bool:
    """Whether there is an open issue of this code on a resource."""
    query = select(issues.c.id).where(
        issues.c.code == code, issues.c.resource_id == resource_id, issues.c.closed_at.is_(None)
    )
    return conn.execute(query.limit(1)).first() is not None


def open_resources(conn: Connection, code: str) -> list[str]:
    """What has an open issue of this code."""
    query = select(issues.c.resource_id).where(issues.c.closed_at.is_(None), issues.c.code == code)
    return sorted(conn.execute(query).scalars())


def any_open(conn: Connection, host_id: str, codes: Sequence[str]) -> bool:
    """Whether a host has an open issue of any of these codes."""
    query = select(issues.c.id).where(
        issues.c.closed_at.is_(None), issues.c.code.in_(codes), issues.c.host_id == host_id
    )
    return conn.execute(query.limit(1)).first() is not None


def open_of_hosts(conn: Connection) -> set[tuple[str, str]]:
    """(code, host) of the open issues that hosts themselves have."""
    query = select(issues.c.code, issues.c.resource_id).where(
        issues.c.closed_at.is_(None), issues.c.resource_type == "host"
    )
    return {(row.code, row.resource_id) for row in conn.execute(query)}


def open_on(conn: Connection, host_id: str) -> Sequence[Row[Any]]:
    """All open ones that were found on a host."""
    return conn.execute(select(issues).where(issues.c.closed_at.is_(None), issues.c.host_id == host_id)).all()


def close(conn: Connection, code: str, resource_id: str) -> None:
    """Close the open issue of this code on a resource, where there is one."""
    same = (issues.c.code == code, issues.c.resource_id == resource_id, issues.c.closed_at.is_(None))
    conn.execute(update(issues).where(*same).values(closed_at=utcnow()))


def settle(conn: Connection, host_id: str | None, codes: Sequence[str], still: set[tuple[str, str]]) -> None:
    """Close open issues of these codes (of a host, where given) that are not among `still` (code, resource id)."""
    query = select(issues.c.id, issues.c.code, issues.c.resource_id).where(
        issues.c.closed_at.is_(None), issues.c.code.in_(codes)
    )
    if host_id is not None:
        query = query.where(issues.c.host_id == host_id)
    gone = [row.id for row in conn.execute(query) if (row.code, row.resource_id) not in still]
    for start in range(0, len(gone), _AT_ONCE):
        some = gone[start : start + _AT_ONCE]
        conn.execute(update(issues).where(issues.c.id.in_(some)).values(closed_at=utcnow()))


def settle_host(conn: Connection, host_id: str) -> None:
    """Close all that was found on a host: nobody looks there any more."""
    there = (issues.c.host_id == host_id, issues.c.closed_at.is_(None))
    conn.execute(update(issues).where(*there).values(closed_at=utcnow()))


def listing(conn: Connection, *, with_closed: bool = False, project_id: str | None = None) -> Sequence[Row[Any]]:
    """Oldest first: what has waited longest comes first."""
    query = select(issues).order_by(issues.c.first_seen, issues.c.id)
    if not with_closed:
        query = query.where(issues.c.closed_at.is_(None))
    if project_id is not None:
        query = query.where(issues.c.project_id == project_id)
    return conn.execute(query).all()


def get(conn: Connection, issue_id: str) -> Row[Any]:
    row = conn.execute(select(issues).where(issues.c.id == issue_id)).one_or_none()
    if row is None:
        raise NotFound(noun="Issue", id=issue_id)
    return row
