"""The incarnation of a site's state, and whether it is being adopted.

A state that is older than what the hosts know (restored from a backup) must win over them with its next words, but must
not undo what it does not know of: its generations begin a new incarnation, and until somebody has looked at the
differences nothing is deleted, detached or given to another host.
"""

from __future__ import annotations

import datetime

from sqlalchemy import Connection, delete, insert, select, update

from agent.base.errors import Conflict
from agent.base.ids import new_id
from coordinator.lifecycle.operation import OPERATION
from coordinator.state import issues
from coordinator.state.issues import Issue
from coordinator.state.locks import hold_name
from coordinator.state.tables.attachments import generations
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.coordinators import coordinators
from coordinator.state.tables.operations import operations
from coordinator.state.tables.site import site_values

_LONG_AGO = datetime.datetime(2026, 1, 1)
_INCARNATION, _ADOPTING, _MOVING, _READ_ONLY = "incarnation", "adopting", "moving", "read-only"
_ISSUE = "site.read-only"
WHILE_ADOPTING = frozenset({"create_volume", "create_snapshot", "upload_image", "download_image"})
"""Kinds of work that add to what there is; all other kinds wait until the site is adopted."""


class Adopting(Conflict):
    code = "site.adopting"
    status = 409
    sentence = "This site was restored from a backup at {since}; {kind} waits until the differences were looked at."
    hint = "See them with: brickyard issue list. Then run on a coordinator: brickyard-coordinator db adopted."


def incarnation(conn: Connection) -> int:
    """The present one; 1 at first."""
    return int(value(conn, _INCARNATION) or 1)


def adopting(conn: Connection) -> str | None:
    """When the state was restored, while it has not been adopted yet."""
    return value(conn, _ADOPTING)


def check_adopted(conn: Connection, kind: str) -> None:
    """Raise Adopting for work that could undo what the state does not know of."""
    if kind not in WHILE_ADOPTING and (since := adopting(conn)) is not None:
        raise Adopting(since=since, kind=kind)


def adopted(conn: Connection) -> bool:
    """The differences were looked at; False when there was nothing to adopt."""
    return conn.execute(delete(site_values).where(site_values.c.key == _ADOPTING)).rowcount == 1


def begin_anew(conn: Connection, *, adopt: bool, former: int = 0) -> int:
    """Begin a new incarnation, and (`adopt`) stop the work that the state still shows as running; returns it.

    It is higher than `former`, than the state's own, and than that of a restore which this state knows nothing of.
    """
    hold_name(conn, "site")
    minutes = int((utcnow() - _LONG_AGO).total_seconds() // 60)
    fresh = max(incarnation(conn) + 1, former + 1, minutes)
    put(conn, _INCARNATION, str(fresh))
    conn.execute(update(generations).values(incarnation=fresh, sequence=0))
    conn.execute(delete(coordinators))
    if adopt:
        rule = OPERATION.rule("restored")
        put(conn, _ADOPTING, utcnow().isoformat(timespec="seconds"))
        conn.execute(
            update(operations)
            .where(operations.c.state.in_(rule.sources))
            .values(state=rule.target, finished_at=utcnow(), owner=None, lease_until=None, error=_INTERRUPTED)
        )
    return fresh


_INTERRUPTED = {
    "code": "operation.restored",
    "status": 500,
    "message": "The state was restored from a backup while this was at work; its outcome is unknown.",
    "hint": "Compare with the hosts: brickyard volume repair --dry-run VOLUME.",
    "context": {},
    "retry_after": None,
}


def read_only(conn: Connection) -> tuple[str, str] | None:
    """Since when (UTC) and why nothing may be changed by calls; None while it may."""
    told = value(conn, _READ_ONLY)
    return None if told is None else (told[:16].replace("T", " "), told[17:])


def set_read_only(conn: Connection, reason: str) -> None:
    """Nothing may be changed by calls; told as an issue, lest it be forgotten."""
    told = value(conn, _READ_ONLY)
    since = utcnow().isoformat(timespec="minutes") if told is None else told[:16]
    put(conn, _READ_ONLY, f"{since} {reason}")
    sentence, remedy = (
        f"The site is read-only since {since} UTC: {reason}",
        "When it is time: brickyard site read-write",
    )
    issues.raise_issue(
        conn, Issue(code=_ISSUE, resource_type="site", resource_id="site", sentence=sentence, remedy=remedy)
    )


def set_writable(conn: Connection) -> None:
    """It may be changed again; nothing when it may already."""
    conn.execute(delete(site_values).where(site_values.c.key == _READ_ONLY))
    issues.close(conn, _ISSUE, "site")


def begin_move(conn: Connection) -> str:
    """A mark that is carried along with the rows of a move, and so tells one that was killed from another state."""
    mark = value(conn, _MOVING) or new_id()
    put(conn, _MOVING, mark)
    return mark


def is_moved(conn: Connection, mark: str) -> bool:
    """Whether all rows of this move are here already."""
    return value(conn, _MOVING) == mark


def end_move(conn: Connection) -> None:
    """The old state was put away."""
    conn.execute(delete(site_values).where(site_values.c.key == _MOVING))


def value(conn: Connection, key: str) -> str | None:
    """What is said of the site under this key."""
    return conn.execute(select(site_values.c.value).where(site_values.c.key == key)).scalar_one_or_none()


def put(conn: Connection, key: str, value: str) -> None:
    """Say it."""
    conn.execute(delete(site_values).where(site_values.c.key == key))
    conn.execute(insert(site_values).values(key=key, value=value))
