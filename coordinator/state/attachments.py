"""Attachment rows, and the generation of each (volume, host) pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from agent.base.errors import NotFound
from agent.wire.jobs import Generation
from coordinator.state import site
from coordinator.state.locks import held
from coordinator.state.tables.attachments import attachments, generations
from coordinator.state.tables.columns import utcnow


def get(conn: Connection, attachment_id: str, project_id: str | None = None) -> Row[Any]:
    """A live attachment; `project_id` None sees all. Raises NotFound, also for a foreign project's."""
    query = select(attachments).where(attachments.c.id == attachment_id, ~attachments.c.deleted)
    if project_id is not None:
        query = query.where(attachments.c.project_id == project_id)
    row = conn.execute(held(conn, query)).one_or_none()
    if row is None:
        raise NotFound(noun="Attachment", id=attachment_id)
    return row


def find(conn: Connection, attachment_id: str) -> Row[Any] | None:
    """A live attachment, for the end of operations; None when it has ended meanwhile."""
    query = select(attachments).where(attachments.c.id == attachment_id, ~attachments.c.deleted)
    return conn.execute(query).one_or_none()


def of_volume(conn: Connection, volume_id: str) -> Sequence[Row[Any]]:
    """Live attachments of one volume, oldest first."""
    query = select(attachments).where(attachments.c.volume_id == volume_id, ~attachments.c.deleted)
    return conn.execute(query.order_by(attachments.c.created_at, attachments.c.id)).all()


def servers(conn: Connection, volume_id: str, *, reserved: bool) -> list[str]:
    """The servers that use a volume (`reserved`: or will), each once, in the order of their attachments."""
    live = [row for row in of_volume(conn, volume_id) if row.instance_id is not None and row.owner != "agent"]
    return list(dict.fromkeys(row.instance_id for row in live if reserved or row.attach_status == "attached"))


def of_host(conn: Connection, volume_id: str, host_id: str) -> Sequence[Row[Any]]:
    """Live attachments that the host's agent keeps for one volume."""
    return [row for row in of_volume(conn, volume_id) if row.owner == "agent" and row.host_id == host_id]


def set_values(conn: Connection, attachment_id: str, **values: Any) -> None:
    """Set columns other than the status."""
    assert not {"attach_status", "deleted"} & values.keys(), "a status moves only along its table"
    conn.execute(update(attachments).where(attachments.c.id == attachment_id).values(updated_at=utcnow(), **values))


def next_generations(conn: Connection, volume_id: str, host_id: str, count: int) -> list[Generation]:
    """Issue `count` generations in the caller's transaction, each newer than all before."""
    table = generations
    pair = (table.c.volume_id == volume_id, table.c.host_id == host_id)
    row = conn.execute(
        update(table).where(*pair).values(sequence=table.c.sequence + count).returning(table)
    ).one_or_none()
    if row is None:
        last, incarnation = count, site.incarnation(conn)
        values = {"volume_id": volume_id, "host_id": host_id, "incarnation": incarnation, "sequence": count}
        conn.execute(insert(table).values(**values))
    else:
        last, incarnation = row.sequence, row.incarnation
    return [Generation(incarnation=incarnation, sequence=last - count + 1 + i) for i in range(count)]
