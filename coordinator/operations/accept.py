"""Accepting work: the operation row, in the caller's transaction (ARCHITECTURE §4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from agent.base.ids import new_id
from coordinator.state import events, operations, services, site
from coordinator.state.events import Change
from coordinator.state.operations import Operation

_CHANGES_DATA = frozenset(
    {"delete_volume", "delete_cascade", "extend_volume", "create_snapshot", "delete_snapshot", "revert_volume",
     "reimage_volume", "recrypt_volume", "rekey_volume", "manage_volume", "unmanage_volume", "manage_snapshot",
     "unmanage_snapshot"}
)  # fmt: skip
"""What a frozen back end refuses."""


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asked. `owner` is this coordinator's name in the lease."""

    project_id: str
    user_id: str
    request_id: str
    owner: str

    def change(self, resource_type: str, resource_id: str) -> Change:
        """What an event of a change is about that needs no operation."""
        return Change(resource_type, resource_id, self.project_id, self.user_id, self.request_id)


def accept(
    conn: Connection,
    requester: Requester,
    *,
    kind: str,
    version: int = 1,
    resource_type: str,
    resource_id: str,
    args: dict[str, Any],
) -> Operation:
    """Insert the operation row and its outbox event; it is durable when the caller's transaction commits."""
    site.check_adopted(conn, kind)
    if kind in _CHANGES_DATA:
        services.check_thawed(conn, resource_type, resource_id)
    operation = Operation(
        id=new_id(),
        kind=kind,
        version=version,
        resource_type=resource_type,
        resource_id=resource_id,
        project_id=requester.project_id,
        user_id=requester.user_id,
        request_id=requester.request_id,
        args=args,
        steps={},
        state="running",
        epoch=1,
        owner=requester.owner,
    )
    operations.add(conn, operation)
    events.record(conn, operation, f"{kind}.start", {})
    return operation
