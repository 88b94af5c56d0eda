"""What a host itself finds wrong (a lost path, a replica behind, a refused configuration) becomes an issue of the site.

What is found by comparing with the rows is not taken twice: those codes are the reconciler's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection

from agent.base.ids import is_id
from agent.wire.results import HostIssue
from coordinator.state import issues
from coordinator.state.issues import Issue

_TOLD = {"told_by": "host"}
_ROOM = 64


def of_host(host_id: str, told: Iterable[HostIssue], own: Collection[str]) -> list[Issue]:
    """As issues of the site; without those of the codes `own`."""
    return [_issue(host_id, one) for one in told if one.code not in own]


def _issue(host_id: str, told: HostIssue) -> Issue:
    kind, resource = "host", f"{host_id}@{told.resource}"
    if is_id(told.resource):
        kind, resource = "attachment", told.resource
    elif told.code.startswith("job."):
        kind, resource = "operation", told.resource.partition("/")[0]
    elif told.resource == "agent":
        resource = host_id
    return Issue(
        told.code, kind, resource[:_ROOM], f"Host {host_id}: {told.message}", told.remedy, host_id=host_id,
        details=dict(_TOLD),
    )  # fmt: skip


def store(conn: Connection, host_id: str, found: Collection[Issue], unsure: Collection[str]) -> None:
    """Open what was told, and close what is told no more; an operation is at work on the `unsure`."""
    for issue in found:
        if issue.resource_id not in unsure:
            issues.raise_issue(conn, issue)
    still = {(issue.code, issue.resource_id) for issue in found}
    gone = [row.code for row in told_open(conn, host_id) if (row.code, row.resource_id) not in still]
    if gone:
        issues.settle(conn, host_id, gone, still | {(code, one) for code in gone for one in unsure})


def told_open(conn: Connection, host_id: str) -> list[Issue]:
    """The open ones that a host has told."""
    return [
        Issue(row.code, row.resource_type, row.resource_id, row.sentence, row.remedy, host_id)
        for row in issues.open_on(conn, host_id)
        if (row.details or {}).items() >= _TOLD.items()
    ]
