"""Operations that wait for a host, as issues with their age: opened with the wait, closed when it is over."""

from __future__ import annotations

import datetime

from sqlalchemy import Connection, select

from coordinator.operations.draining import WAITS
from coordinator.state import issues
from coordinator.state.issues import Issue
from coordinator.state.operations import Operation, is_active
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.operations import operations

CODE = "operation.waiting"
_AT_ONCE = 1000


def told(conn: Connection, operation: Operation, reason: str | None) -> None:
    """Open the issue of a wait that begins, or close the one of a wait that is over (`reason` None)."""
    if reason is None:
        issues.close(conn, CODE, operation.id)
        return
    about = (operation.id, operation.kind, operation.resource_type, operation.resource_id, operation.project_id)
    issues.raise_issue(conn, _issue(about, reason, utcnow()))


def follow(conn: Connection) -> int:
    """Bring ages up to date, and close what is over, whoever ended it; returns how many operations wait."""
    columns = ("id", "kind", "resource_type", "resource_id", "project_id", "waiting", "waiting_since")
    query = select(*(operations.c[name] for name in columns)).where(is_active(), operations.c.waiting.is_not(None))
    rows = conn.execute(query.order_by(operations.c.waiting_since).limit(_AT_ONCE)).all()
    for row in rows:
        issues.raise_issue(conn, _issue(tuple(row[:5]), row.waiting, row.waiting_since or utcnow()))
    if len(rows) < _AT_ONCE:
        issues.settle(conn, None, [CODE], {(CODE, row.id) for row in rows})
    return len(rows)


def _issue(about: tuple[str, ...], reason: str, since: datetime.datetime) -> Issue:
    operation_id, kind, resource_type, resource_id, project_id = about
    age = max(0, round((utcnow() - since).total_seconds()))
    return Issue(
        code=CODE,
        resource_type="operation",
        resource_id=operation_id,
        project_id=project_id,
        sentence=f"Operation {operation_id} ({kind} of {resource_type} {resource_id}) waits since {age} s: {reason}.",
        remedy=f"{_remedy(reason)}; the work then goes on by itself. See: brickyard operation show {operation_id}",
        details={"age_s": age, "since": since.isoformat(), "reason": reason},
    )


def _remedy(reason: str) -> str:
    if reason.startswith(WAITS):
        return f"When the host is ready: brickyard host enable {reason.split()[2]}"
    return "Bring the host back"
