"""Issues: what is not as it should be, with a remedy."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row

from agent.base.errors import NotFound
from coordinator.api.brickyard.pages import PAGING, asked, next_marker, picked
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Time
from coordinator.api.paging import flag
from coordinator.api.route import Resource, get
from coordinator.state import issues, site_lists
from coordinator.state.tables.fleet import issues as table

_OWN = "brickyard:issues:get_own"
_FIELDS = (
    "id", "code", "resource_type", "resource_id", "host_id", "project_id", "sentence", "remedy", "details",
    "request_id", "first_seen", "last_seen", "closed_at",
)  # fmt: skip


class IssueAnswer(Answer):
    id: str
    code: str
    resource_type: str
    resource_id: str
    host_id: str | None
    project_id: str | None
    sentence: str
    remedy: str
    details: dict[str, Any]
    request_id: str | None
    first_seen: Time
    last_seen: Time
    closed_at: Time | None


class IssueList(Answer):
    issues: list[IssueAnswer]
    next_marker: str | None


async def listed(call: Call) -> dict[str, Any]:
    """An administrator sees all, others what concerns their project."""
    where: list[ColumnElement[bool]] = [
        table.c[name] == call.query[name] for name in ("code", "resource_id", "host_id") if call.query.get(name)
    ]
    if not flag(call, "closed"):
        where.append(table.c.closed_at.is_(None))
    project, page = _scope(call), asked(call, site_lists.OLDEST_FIRST)
    rows = await call.services.db.read(lambda conn: site_lists.issue_page(conn, project, where, page))
    found = [picked(row, *_FIELDS) for row in rows]
    return {"issues": found, "next_marker": next_marker([row.id for row in rows], page)}


def _scope(call: Call) -> str | None:
    return None if call.may("brickyard:issues:get") else call.context.project_id


async def show(call: Call) -> dict[str, Any]:
    def read(conn: Connection) -> Row[Any]:
        row, mine = issues.get(conn, call.params["issue_id"]), _scope(call)
        if mine not in {None, row.project_id}:
            raise NotFound(noun="Issue", id=row.id)
        return row

    return picked(await call.services.db.read(read), *_FIELDS)


def resource() -> Resource:
    """The routes."""
    return Resource(
        "issues",
        "Issues.",
        (
            get("/issues", listed, _OWN, "List open issues, the oldest first.", answer=IssueList,
                query=(*PAGING, "code", "resource_id", "host_id", "closed")),
            get("/issues/{issue_id}", show, _OWN, "Show an issue.", answer=IssueAnswer, answer_key="issue"),
        ),
        prefix="/brickyard/v1",
    )  # fmt: skip
