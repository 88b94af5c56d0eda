"""Trying an undo again that had been given up, after its cause was mended."""

from __future__ import annotations

from sqlalchemy import Connection

from agent.base.errors import Conflict, NotFound
from coordinator.operations.advance import undo_again
from coordinator.state import operations
from coordinator.state.operations import Operation


class NotRetryable(Conflict):
    code = "operation.not-retryable"
    sentence = "Operation {operation} is {state}; only one that needs attention can be tried again."


def accept_retry(conn: Connection, operation_id: str, owner: str) -> Operation:
    """The operation, undoing again and owned by `owner`; raises NotFound, NotRetryable."""
    revived = operations.revive(conn, operation_id, owner)
    if revived is None:
        known = operations.get(conn, operation_id)
        if known is None:
            raise NotFound(noun="Operation", id=operation_id)
        raise NotRetryable(operation=operation_id, state=known.state)
    step = (revived.error or {}).get("context", {}).get("step")
    return undo_again(conn, revived, str(step)) if step else revived
