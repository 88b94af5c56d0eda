"""Hosts that were given up: when, by whom, on what evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from agent.base.ids import new_id
from coordinator.state.locks import held
from coordinator.state.paging import Page, page_of
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import evictions

NEWEST_FIRST = (("at", True), ("id", True))


def add(conn: Connection, host_id: str, **values: Any) -> None:
    """Write down that the host was evicted now: user_id, request_id, evidence, words, counts."""
    conn.execute(insert(evictions).values(id=new_id(), host_id=host_id, at=utcnow(), **values))


def returned(conn: Connection, host_id: str) -> None:
    """The host was enrolled again."""
    there = (evictions.c.host_id == host_id, evictions.c.returned_at.is_(None))
    conn.execute(update(evictions).where(*there).values(returned_at=utcnow()))


def standing(conn: Connection) -> Sequence[Row[Any]]:
    """Evictions of hosts that were not enrolled again since."""
    return conn.execute(select(evictions).where(evictions.c.returned_at.is_(None)).order_by(evictions.c.at)).all()


def to_clear(conn: Connection) -> Sequence[Row[Any]]:
    """The first eviction of each host that is back since and may still hold what was ended meanwhile."""
    query = select(evictions).where(evictions.c.returned_at.is_not(None), evictions.c.cleared_at.is_(None))
    return list({row.host_id: row for row in conn.execute(query.order_by(evictions.c.at.desc()))}.values())


def get(conn: Connection, eviction_id: str) -> Row[Any] | None:
    return conn.execute(select(evictions).where(evictions.c.id == eviction_id)).one_or_none()


def took(conn: Connection, eviction_id: str, counts: Mapping[str, int]) -> None:
    """Add to what was taken from the host."""
    row = conn.execute(held(conn, select(evictions).where(evictions.c.id == eviction_id))).one_or_none()
    if row is None:
        return
    taken = dict(row.taken or {})
    for what, count in counts.items():
        taken[what] = taken.get(what, 0) + count
    conn.execute(update(evictions).where(evictions.c.id == eviction_id).values(taken=taken))


def cleared(conn: Connection, host_id: str) -> None:
    """Nothing that was ended meanwhile is left on a host that came back."""
    back = (evictions.c.host_id == host_id, evictions.c.returned_at.is_not(None), evictions.c.cleared_at.is_(None))
    conn.execute(update(evictions).where(*back).values(cleared_at=utcnow()))


def last_return(conn: Connection, host_id: str) -> Row[Any] | None:
    """The newest eviction that the host has come back from."""
    query = select(evictions).where(evictions.c.host_id == host_id, evictions.c.returned_at.is_not(None))
    return conn.execute(query.order_by(evictions.c.at.desc()).limit(1)).first()


def of_host(conn: Connection, host_id: str) -> Row[Any] | None:
    """The standing eviction of a host."""
    query = select(evictions).where(evictions.c.host_id == host_id, evictions.c.returned_at.is_(None))
    return conn.execute(query.order_by(evictions.c.at.desc()).limit(1)).first()


def page(conn: Connection, wanted: Page) -> Sequence[Row[Any]]:
    """All evictions, newest first."""
    return page_of(conn, select(evictions), evictions, wanted)
