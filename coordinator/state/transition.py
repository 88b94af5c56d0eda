"""The one way a status moves: a conditional UPDATE fed by the transition table of its noun."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, bindparam, exists, insert, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from agent.base.errors import NotFound
from coordinator.lifecycle.attachment import ATTACHMENT
from coordinator.lifecycle.image import IMAGE
from coordinator.lifecycle.snapshot import SNAPSHOT
from coordinator.lifecycle.table import NEW, PREVIOUS, SAME, Lifecycle
from coordinator.lifecycle.volume import VOLUME
from coordinator.state import usage
from coordinator.state.errors import CachedImage, ConditionUnmet, TransitionRefused
from coordinator.state.locks import hold
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.image_cache import image_cache
from coordinator.state.tables.images import images
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes
from coordinator.state.together import hopeful, later, note
from coordinator.state.volumes import being_made, being_taken, foreseen, has_no_attachments, with_any_state

_NOUNS: dict[str, tuple[Lifecycle, Table, str]] = {
    "volume": (VOLUME, volumes, "status"),
    "snapshot": (SNAPSHOT, snapshots, "status"),
    "attachment": (ATTACHMENT, attachments, "attach_status"),
    "image": (IMAGE, images, "status"),
}
_CACHED = exists(select(image_cache.c.volume_id).where(image_cache.c.volume_id == bindparam("wanted")))
_INSERTS = {noun: insert(table).returning(table) for noun, (_, table, _) in _NOUNS.items()}


def enter(conn: Connection, noun: str, event: str, **values: Any) -> Row[Any]:
    """Insert a new row in the status that `event` gives it; returns the row."""
    lifecycle, _, column = _NOUNS[noun]
    rule = lifecycle.rule(event)
    assert rule.sources == (NEW,), f"{noun}: {event} does not make a new row"
    row = _entered(conn, noun, {column: rule.target, **values})
    note(conn, (noun, row.id), row)
    if usage.is_counted(_NOUNS[noun][1]):
        usage.changed(conn, None, row)
    return row


def _entered(conn: Connection, noun: str, values: dict[str, Any]) -> Row[Any]:
    if not hopeful(conn):
        return conn.execute(_INSERTS[noun], values).one()
    from coordinator.state import combined

    table = _NOUNS[noun][1]
    made = combined.whole(table, values)
    later(conn, combined.inserting(table), made, (noun, made["id"]))
    return combined.row_of(table, made)


def move(
    conn: Connection,
    noun: str,
    id: str,
    event: str,
    *,
    guards: tuple[ColumnElement[bool], ...] = (),
    **values: Any,
) -> Row[Any]:
    """Move one row along the table, with other columns set in the same statement; returns the new row.

    Raises NotFound, or TransitionRefused naming the present status, the rule and what would help. `guards` are
    further conditions; when they alone fail, TransitionRefused is raised as well.
    """
    now = utcnow()
    if _NOUNS[noun][0].rule(event).target == "deleted":
        values |= {"deleted": True, "deleted_at": now}
    was = usage.before(conn, _NOUNS[noun][1], id, values)
    statement = _update(noun, event)
    expressions = {name: value for name, value in values.items() if isinstance(value, ColumnElement)}
    if guards:
        # A guard looks at other rows: those who add such a row hold this one, so that it is seen or waits.
        hold(conn, _NOUNS[noun][1], id)
    if guards or expressions:
        statement = statement.where(*guards).values(**expressions)
    elif was is None and noun == "volume" and hopeful(conn):
        reckoned = _reckoned(conn, id, event, {"updated_at": now, **values})
        if reckoned is not None:
            return reckoned
    plain = {name: value for name, value in values.items() if name not in expressions}
    row = conn.execute(statement, {"wanted": id, "updated_at": now, **plain}).one_or_none()
    if row is None:
        raise refusal(conn, noun, id, event)
    note(conn, (noun, id), row)
    if was is not None:
        usage.changed(conn, was, row)
    return row


def _reckoned(conn: Connection, id: str, event: str, values: dict[str, Any]) -> Row[Any] | None:
    """The volume's row as it will be moved at the end of a hopeful transaction; None where that is not sure."""
    rule, row = VOLUME.rule(event), with_any_state(conn, id)
    if row is None or row.deleted or row.status not in rule.sources or (rule.alters and not row.use_quota):
        return None
    target = {PREVIOUS: row.previous_status, SAME: row.status}.get(rule.target, rule.target)
    remembered = {"previous_status": row.status} if rule.remember else {}
    sources = " OR ".join(f"volumes.status = '{status}'" for status in rule.sources)
    where = f"({sources}) AND NOT volumes.deleted" + (" AND volumes.use_quota" if rule.alters else "")
    return foreseen(conn, row, {"status": target, **remembered, **values}, where)


@cache
def _update(noun: str, event: str) -> ReturningUpdate[Any]:
    """The statement of one rule; putting it together costs more than running it."""
    lifecycle, table, column = _NOUNS[noun]
    rule = lifecycle.rule(event)
    status = table.c[column]
    target = {PREVIOUS: table.c.previous_status, SAME: status}.get(rule.target, rule.target)
    remembered = {"previous_status": status} if rule.remember else {}
    # Most volumes count to a quota, and are not looked for in the cache.
    spared = (or_(volumes.c.use_quota, ~_CACHED),) if rule.alters else ()
    return (
        update(table)
        .where(table.c.id == bindparam("wanted"), status.in_(rule.sources), ~table.c.deleted, *spared)
        .values(**{column: target}, **remembered)
        .returning(table)
    )


def move_if(conn: Connection, noun: str, id: str, event: str, **values: Any) -> Row[Any] | None:
    """Like `move`, for the end of an operation that may have ended before: None where it does not apply."""
    try:
        return move(conn, noun, id, event, **values)
    except (NotFound, TransitionRefused):
        return None


_WAIT = "Wait until that has ended, or cancel it: brickyard operation cancel OPERATION."


def refusal(conn: Connection, noun: str, id: str, event: str) -> NotFound | TransitionRefused:
    """The error that says why `event` is not possible now."""
    lifecycle, table, column = _NOUNS[noun]
    rule = lifecycle.rule(event)
    row = conn.execute(select(table.c[column]).where(table.c.id == id, ~table.c.deleted)).one_or_none()
    if row is None:
        return NotFound(noun=noun.capitalize(), id=id)
    if rule.alters and conn.execute(select(_CACHED), {"wanted": id}).scalar_one():
        return CachedImage(noun=noun, id=id, status=row[0], event=event, allowed="", help="")
    said = {"noun": noun, "id": id, "status": row[0], "event": event, "help": rule.help}
    if row[0] in rule.sources:
        why, passes = _what_depends(conn, noun, id)
        return ConditionUnmet(**{**said, "help": _WAIT if passes else rule.help}, why=why)
    return TransitionRefused(**said, allowed=", ".join(rule.sources))


def _what_depends(conn: Connection, noun: str, id: str) -> tuple[str, bool]:
    """Which condition on other rows was not met, as far as that can still be seen, and whether it ends by itself."""
    if noun in {"volume", "snapshot"}:
        source = being_made(volume_id=id) if noun == "volume" else being_made(snapshot_id=id)
        made = conn.execute(source.limit(1)).scalar()
        if made is not None:
            return f"volume {made} is being made from it", True
    if noun == "volume" and (taken := conn.execute(being_taken(id).limit(1)).scalar()) is not None:
        return f"snapshot {taken} of it is being taken", True
    if noun == "volume" and not conn.execute(select(has_no_attachments(id))).scalar_one():
        return "it has attachments", False
    return "what depends on it does not allow that", False
