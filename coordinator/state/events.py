"""The outbox of events: written with the change that they tell of, read in an order that never skips one.

On PostgreSQL a number that is drawn when a row is written may become visible after a higher one. So positions are
given out afterwards, to rows that are committed, by one writer at a time (`number`): who has read up to a position
has seen all that will ever stand below it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Row, bindparam, exists, func, insert, select, update

from coordinator.state import issues, notices
from coordinator.state.database import Database
from coordinator.state.issues import Issue
from coordinator.state.news import EVENTS, ring
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.events import event_consumers, event_numbering, events
from coordinator.state.together import hopeful, later

AT_ONCE = 1000
NOT_DELIVERED, GIVEN_UP = "notifications.not-delivered", "notifications.given-up"
DROPPED = "notifications.dropped"
_ADD = insert(events).inline()  # nobody asks for its number
_PLACE = update(events).where(events.c.seq == bindparam("number")).values(position=bindparam("place"))
_NEW = select(events.c.seq).where(events.c.position.is_(None)).order_by(events.c.seq).limit(AT_ONCE)
_NEXT = update(event_numbering).where(event_numbering.c.id == 1).returning(event_numbering.c.last)


class About(Protocol):
    """What an event is of: an operation, or a row and who changed it."""

    @property
    def resource_type(self) -> str: ...
    @property
    def resource_id(self) -> str: ...
    @property
    def project_id(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def request_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Change:
    """A change that needed no operation."""

    resource_type: str
    resource_id: str
    project_id: str
    user_id: str
    request_id: str


def record(conn: Connection, about: About, type: str, payload: Mapping[str, Any]) -> None:
    """Add an event in the transaction of its change, with the resource as it is now."""
    facts = notices.facts(conn, about.resource_type, about.resource_id)
    values = {name: getattr(about, name) for name in ("resource_type", "resource_id", "project_id", "request_id")}
    whole = {"user_id": about.user_id, **facts, **payload}
    later(conn, _insert, {**values, "at": utcnow(), "type": type, "payload": whole})
    ring(conn, EVENTS)


def _insert(conn: Connection, rows: list[dict[str, Any]]) -> None:
    notices.complete(conn, [row["payload"] for row in rows])
    if hopeful(conn):
        from coordinator.state import combined

        combined.inserting(events)(conn, [combined.whole(events, row) for row in rows])
    else:
        conn.execute(_ADD, rows if len(rows) > 1 else rows[0])


def waits(conn: Connection) -> bool:
    """Whether there are events without a position."""
    return conn.execute(select(exists(_NEW.limit(1)))).scalar_one()


def number(conn: Connection) -> int:
    """Give the next positions to some of the events that have none; returns to how many."""
    last = conn.execute(_NEXT.values(last=event_numbering.c.last)).scalar_one_or_none()
    if last is None:
        conn.execute(insert(event_numbering).values(id=1, last=0))
        last = 0
    found = list(conn.execute(_NEW).scalars())
    if found:
        places = [{"number": seq, "place": last + count} for count, seq in enumerate(found, 1)]
        conn.execute(_PLACE, places)
        conn.execute(_NEXT.values(last=last + len(found)))
    return len(found)


async def numbered(db: Database) -> None:
    """Let every event have its position that was committed before this was called."""
    while await db.read(waits):
        if await db.write(number) < AT_ONCE:
            return


def last(conn: Connection) -> int:
    """The highest position so far."""
    return conn.execute(select(event_numbering.c.last)).scalar_one_or_none() or 0


def missed(conn: Connection, position: int) -> bool:
    """Whether some that came after this one were dropped already; never for one who begins (0)."""
    first = conn.execute(select(func.min(events.c.position))).scalar_one()
    return 0 < position < (last(conn) if first is None else first - 1)


def after(
    conn: Connection, position: int, project_id: str | None, limit: int, where: Iterable[ColumnElement[bool]] = ()
) -> Sequence[Row[Any]]:
    """Events with a higher position, in their order; of one project, or of all."""
    query = select(events).where(events.c.position > position, *where)
    if project_id is not None:
        query = query.where(events.c.project_id == project_id)
    return conn.execute(query.order_by(events.c.position).limit(limit)).all()


def consumer(conn: Connection, name: str) -> Row[Any]:
    """How far one has come; a new one begins with what happens from now on."""
    query = select(event_consumers).where(event_consumers.c.name == name)
    found = conn.execute(query).one_or_none()
    if found is None:
        conn.execute(insert(event_consumers).values(name=name, position=last(conn)))
        found = conn.execute(query).one()
    return found


def delivered(conn: Connection, name: str, position: int, upto: int) -> bool:
    """Move a consumer on; False when another coordinator has moved it meanwhile."""
    here = (event_consumers.c.name == name, event_consumers.c.position == position)
    values = {"position": upto, "failing_since": None, "attempts": 0, "last_error": None}
    issues.close(conn, NOT_DELIVERED, name)
    return conn.execute(update(event_consumers).where(*here).values(**values)).rowcount == 1


def failed(conn: Connection, name: str, position: int, reason: str) -> Row[Any] | None:
    """Note that the next event could not be delivered; the consumer, or None when another has moved it."""
    here = (event_consumers.c.name == name, event_consumers.c.position == position)
    values = {"attempts": event_consumers.c.attempts + 1, "last_error": reason[:1000]}
    row = conn.execute(update(event_consumers).where(*here).values(**values).returning(event_consumers)).one_or_none()
    if row is None:
        return None
    if row.failing_since is None:
        conn.execute(update(event_consumers).where(*here).values(failing_since=utcnow()))
    since = row.failing_since or utcnow()
    if row.attempts > 1:
        issues.raise_issue(conn, _stuck(name, since, reason))
    return row


def given_up(conn: Connection, name: str, position: int, lost: int, reason: str) -> bool:
    """Pass over an event that can not be delivered; what was lost stays as an issue."""
    if not delivered(conn, name, position, lost):
        return False
    issue = Issue(
        code=GIVEN_UP, resource_type="consumer", resource_id=name,
        sentence=f"Event {lost} was not delivered to {name}, and is not tried any more: {reason}",
        remedy=f"Read it with: brickyard event list --all-projects --after {lost - 1} --limit 1",
    )  # fmt: skip
    issues.raise_issue(conn, issue)
    return True


def dropping(conn: Connection, names: Iterable[str], seqs: Sequence[Any]) -> None:
    """These events are dropped for their age: who of these consumers was not told of them yet has missed something."""
    upto = conn.execute(select(func.max(events.c.position)).where(events.c.seq.in_(seqs))).scalar_one()
    behind = event_consumers.c.name.in_(names) & (event_consumers.c.position < (upto or 0))
    for name in conn.execute(select(event_consumers.c.name).where(behind).order_by(event_consumers.c.name)).scalars():
        issue = Issue(
            code=DROPPED, resource_type="consumer", resource_id=name,
            sentence=f"Events up to {upto} were dropped for their age before {name} could be told of them.",
            remedy="Mend the receiver and compare what it knows with the site; housekeeping.events_days keeps longer.",
        )  # fmt: skip
        issues.raise_issue(conn, issue)


def _stuck(name: str, since: datetime.datetime, reason: str) -> Issue:
    return Issue(
        code=NOT_DELIVERED, resource_type="consumer", resource_id=name,
        sentence=f"Events have not reached {name} since {since.isoformat(timespec='seconds')}Z: {reason}",
        remedy="Mend the receiver, or correct [notifications]; what happened meanwhile is delivered afterwards.",
    )  # fmt: skip
