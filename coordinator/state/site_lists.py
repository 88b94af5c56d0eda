"""Pages of what `/brickyard/v1` lists: hosts, operations, host attachments, issues."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from coordinator.state.paging import Page, page_of
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.enrolment import enrolled_hosts
from coordinator.state.tables.fleet import hosts, issues
from coordinator.state.tables.operations import operations

BY_ID = (("id", False),)
OLDEST_FIRST = (("first_seen", False), ("id", False))


def host_page(conn: Connection, page: Page) -> Sequence[Row[Any]]:
    """Hosts with their addresses, by name."""
    where = (enrolled_hosts.c.address, enrolled_hosts.c.control_port, enrolled_hosts.c.data_port)
    query = select(hosts, *where).join(enrolled_hosts, enrolled_hosts.c.name == hosts.c.id)
    return page_of(conn, query, hosts, page)


def operation_page(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page
) -> Sequence[Row[Any]]:
    """Operations of a project, or of all, newest first."""
    query = select(operations).where(*where)
    if project_id is None:
        return page_of(conn, query, operations, page)
    mine = operations.c.project_id == project_id
    return page_of(conn, query.where(mine), operations, page, mine)


def attachment_page(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page
) -> Sequence[Row[Any]]:
    """Live attachments that hosts keep, newest first."""
    mine = ~attachments.c.deleted
    if project_id is not None:
        mine = mine & (attachments.c.project_id == project_id)
    return page_of(
        conn, select(attachments).where(mine, attachments.c.owner == "agent", *where), attachments, page, mine
    )


def issue_page(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page
) -> Sequence[Row[Any]]:
    """Issues, what has waited longest first."""
    query = select(issues).where(*where)
    if project_id is None:
        return page_of(conn, query, issues, page)
    mine = issues.c.project_id == project_id
    return page_of(conn, query.where(mine), issues, page, mine)
