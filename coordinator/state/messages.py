"""User messages: written in the transaction that ends an operation badly."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from agent.base.errors import BrickyardError, NotFound
from agent.base.ids import new_id
from coordinator.state import message_words
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.messages import messages

_kept = datetime.timedelta(days=30)


def keep_for(seconds: float) -> None:
    """How long messages are kept that are written from now on; what was promised of earlier ones holds."""
    global _kept
    _kept = datetime.timedelta(seconds=seconds)


def record(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    """Tell the owner what happened to the resource of `operation`, and what to do."""
    now = utcnow()
    conn.execute(
        insert(messages).values(
            id=new_id(),
            project_id=operation.project_id,
            request_id=operation.request_id,
            resource_type=message_words.resource(operation),
            resource_uuid=operation.resource_id,
            event_id=message_words.event(operation, error),
            code=error.code,
            action=operation.kind,
            message_level="ERROR",
            user_message=message_words.text(operation, error),
            created_at=now,
            guaranteed_until=now + _kept,
        )
    )


def get(conn: Connection, message_id: str, project_id: str | None = None) -> Row[Any]:
    query = select(messages).where(messages.c.id == message_id)
    if project_id is not None:
        query = query.where(messages.c.project_id == project_id)
    row = conn.execute(query).one_or_none()
    if row is None:
        raise NotFound(noun="Message", id=message_id)
    return row


def listing(conn: Connection, project_id: str | None = None) -> Sequence[Row[Any]]:
    """Newest first."""
    query = select(messages).order_by(messages.c.created_at.desc(), messages.c.id.desc())
    if project_id is not None:
        query = query.where(messages.c.project_id == project_id)
    return conn.execute(query).all()


def remove(conn: Connection, message_id: str) -> None:
    conn.execute(delete(messages).where(messages.c.id == message_id))
