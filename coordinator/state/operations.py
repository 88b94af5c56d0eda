"""Operation rows: accepted in the caller's transaction, then moved on only by the owner of the present epoch."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from coordinator.lifecycle.operation import OPERATION
from coordinator.state.clock import database_now
from coordinator.state.errors import LeaseLost
from coordinator.state.locks import beside_others
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.operations import operations
from coordinator.state.together import amend, hopeful, later

LEASE_S = 10.0
_CLAIMED_AT_ONCE = 200
ACTIVE = ("running", "undoing")


@dataclass(frozen=True, slots=True)
class Operation:
    """One row as its owner sees it. `steps` maps a name to `{state, attempt, result}`."""

    id: str
    kind: str
    version: int
    resource_type: str
    resource_id: str
    project_id: str
    user_id: str
    request_id: str
    args: dict[str, Any]
    steps: dict[str, dict[str, Any]]
    state: str
    epoch: int
    owner: str | None
    cancel_requested: bool = False
    error: dict[str, Any] | None = None
    step: str | None = None
    progress: dict[str, Any] | None = None
    waiting: str | None = None
    created_at: datetime.datetime = field(default_factory=utcnow)
    updated_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None

    @property
    def results(self) -> dict[str, Any]:
        """Stored results of finished steps, by step name."""
        return {name: step.get("result") for name, step in self.steps.items() if step.get("state") == "done"}

    def attempt(self, step: str) -> int:
        return int(self.steps.get(step, {}).get("attempt", 1))


_INSERTED = (
    "id", "kind", "version", "resource_type", "resource_id", "project_id", "user_id", "request_id", "args", "steps",
    "epoch", "owner", "created_at",
)  # fmt: skip
# Made once: building a statement takes longer than running it.
_ADD = insert(operations).values(lease_until=database_now() + LEASE_S)
_COLUMNS = [operations.c[name] for name in Operation.__dataclass_fields__]


def is_active() -> ColumnElement[bool]:
    """At work now; written out, for only so SQLite sees that the index of active operations holds them all."""
    return operations.c.state.in_([literal_column(f"'{state}'") for state in ACTIVE])


_OURS = update(operations).where(
    operations.c.id == bindparam("our_id"),
    operations.c.owner == bindparam("our_owner"),
    operations.c.epoch == bindparam("our_epoch"),
    is_active(),
)
_FENCED = _OURS.returning(*_COLUMNS)
_MOVED = _OURS.returning(operations.c.cancel_requested, operations.c.progress)


def _of(row: Row[Any]) -> Operation:
    return Operation(**row._mapping)


def add(conn: Connection, operation: Operation) -> None:
    """Insert a new operation, owned from the start by the coordinator that accepted it."""
    values = {name: getattr(operation, name) for name in _INSERTED}
    values["state"] = OPERATION.rule("accept").target
    if not hopeful(conn):
        later(conn, _insert, values)
        return
    from coordinator.state import combined

    leased = ("lease_until", f"extract(epoch from clock_timestamp()) + {LEASE_S}")
    row = combined.whole(operations, values)
    later(conn, combined.inserting(operations, (leased,)), row, ("operation", operation.id))


def _insert(conn: Connection, rows: list[dict[str, Any]]) -> None:
    conn.execute(_ADD, rows if len(rows) > 1 else rows[0])


def get(conn: Connection, id: str) -> Operation | None:
    row = conn.execute(select(*_COLUMNS).where(operations.c.id == id)).one_or_none()
    return None if row is None else _of(row)


def active_of(conn: Connection, resource_id: str) -> Operation | None:
    """The operation that is at work on a resource now, newest first."""
    row = conn.execute(
        select(*_COLUMNS)
        .where(operations.c.resource_id == resource_id, is_active())
        .order_by(operations.c.created_at.desc())
        .limit(1)
    ).first()
    return None if row is None else _of(row)


def ended_among(conn: Connection, ids: Collection[str]) -> set[str]:
    """Which of these operations are known and have ended."""
    query = select(operations.c.id).where(operations.c.id.in_(ids), operations.c.state.not_in(ACTIVE))
    return set(conn.execute(query).scalars())


def listing(
    conn: Connection, *, project_id: str | None = None, active: bool = False, resource_id: str | None = None,
    limit: int = 1000
) -> list[Operation]:  # fmt: skip
    """Newest first; `project_id` None means all projects."""
    query = select(*_COLUMNS).order_by(operations.c.created_at.desc(), operations.c.id.desc()).limit(limit)
    if project_id is not None:
        query = query.where(operations.c.project_id == project_id)
    if resource_id is not None:
        query = query.where(operations.c.resource_id == resource_id)
    if active:
        query = query.where(is_active())
    return [_of(row) for row in conn.execute(query)]


def claim(conn: Connection, owner: str, *, all_of_them: bool, known: frozenset[tuple[str, int]]) -> list[Operation]:
    """Take operations whose lease ran out (or all, where the database is held by this process alone).

    Each claim raises the epoch. Operations of a (kind, version) not in `known` are left for a coordinator that has it.
    """
    free = or_(operations.c.lease_until < database_now(), operations.c.lease_until.is_(None))
    condition = is_active() if all_of_them else and_(is_active(), free)
    ours = tuple_(operations.c.kind, operations.c.version).in_(sorted(known))
    query = select(operations.c.id).where(condition, ours)
    if beside_others(conn) and not all_of_them:
        # What another coordinator is claiming just now is passed over, and so is the rest for the next round.
        query = query.order_by(operations.c.lease_until).limit(_CLAIMED_AT_ONCE)
        query = query.with_for_update(skip_locked=True, key_share=True)
    claimed: list[Operation] = []
    for operation_id in conn.execute(query).scalars().all():
        row = conn.execute(
            update(operations)
            .where(operations.c.id == operation_id, condition)
            .values(owner=owner, epoch=operations.c.epoch + 1, lease_until=database_now() + LEASE_S)
            .returning(*_COLUMNS)
        ).one_or_none()
        if row is not None:
            claimed.append(_of(row))
    return claimed


def raise_epoch(conn: Connection, operation: Operation, more: int) -> Operation | None:
    """Claim an operation of one's own anew, `more` epochs on; None when it has ended or another has it."""
    try:
        return fenced(conn, operation, epoch=operation.epoch + more)
    except LeaseLost:
        return None


def renew(conn: Connection, owner: str, ids: Collection[str] | None = None) -> list[str]:
    """Renew the leases of this owner (on these operations alone, if given); returns those that are to be cancelled.

    One that is being moved on just now is left for the next time: who moves several may be waiting for this.
    """
    mine = select(operations.c.id).where(operations.c.owner == owner, is_active())
    if ids is not None:
        mine = mine.where(operations.c.id.in_(ids))
    if beside_others(conn):
        mine = mine.with_for_update(skip_locked=True, key_share=True)
    query = update(operations).where(operations.c.id.in_(mine)).values(lease_until=database_now() + LEASE_S)
    renewed = conn.execute(query.returning(operations.c.id, operations.c.cancel_requested))
    return [row.id for row in renewed if row.cancel_requested]


def let_go(conn: Connection, owner: str) -> int:
    """Leave what this owner has to whoever comes first; returns how many operations."""
    return conn.execute(
        update(operations).where(operations.c.owner == owner, is_active()).values(lease_until=None)
    ).rowcount


def fenced(conn: Connection, operation: Operation, **values: Any) -> Operation:
    """Write to a row only while its (owner, epoch) is still ours; raises LeaseLost otherwise."""
    ours = {"our_id": operation.id, "our_owner": operation.owner, "our_epoch": operation.epoch}
    row = conn.execute(_FENCED, {**ours, "updated_at": utcnow(), **values}).one_or_none()
    if row is None:
        raise LeaseLost(id=operation.id, epoch=operation.epoch)
    return _of(row)


def moved_on(conn: Connection, operation: Operation, **values: Any) -> Operation:
    """Like `fenced`, for who has the row as it is: only what others may have changed is read back.

    In a hopeful transaction not even that: a cancellation is told by the row's leases, too.
    """
    ours = {"our_id": operation.id, "our_owner": operation.owner, "our_epoch": operation.epoch}
    now = utcnow()
    if hopeful(conn):
        _move_later(conn, operation, {"updated_at": now, **values})
        return _moved(operation, values, {"updated_at": now})
    row = conn.execute(_MOVED, {**ours, "updated_at": now, **values}).one_or_none()
    if row is None:
        raise LeaseLost(id=operation.id, epoch=operation.epoch)
    return _moved(operation, values, {"updated_at": now, **row._mapping})


def _moved(operation: Operation, values: Mapping[str, Any], more: Mapping[str, Any]) -> Operation:
    said = {name: _stored(value) for name, value in values.items() if name in Operation.__dataclass_fields__}
    return replace(operation, **{**said, **more})


def _move_later(conn: Connection, operation: Operation, values: dict[str, Any]) -> None:
    if amend(conn, ("operation", operation.id), values):
        return
    from coordinator.state import combined

    ours = {"id": operation.id, "owner": operation.owner, "epoch": operation.epoch}
    active = " OR ".join(f"operations.state = '{state}'" for state in ACTIVE)
    later(conn, combined.updating(operations, tuple(sorted(values)), tuple(ours), f"({active})"), {**ours, **values})


def _stored(value: Any) -> Any:
    """As it would be read back."""
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)) if isinstance(value, dict) else value


def note_progress(conn: Connection, owner: str, told: Collection[tuple[str, int, dict[str, Any]]]) -> None:
    """Store (id, epoch, progress) of operations that are still this owner's; in a fixed order of rows."""
    for operation_id, epoch, progress in told:
        mine = (operations.c.id == operation_id, operations.c.owner == owner, operations.c.epoch == epoch, is_active())
        conn.execute(update(operations).where(*mine).values(progress=progress))


def step_done(conn: Connection, operation: Operation, step: str, result: dict[str, Any] | None) -> Operation:
    """Store a step's result under the fence."""
    entry = {**operation.steps.get(step, {}), "state": "done", "result": result}
    return fenced(conn, operation, steps={**operation.steps, step: entry}, step=step, waiting=None, waiting_since=None)


def finish(conn: Connection, operation: Operation, event: str, error: dict[str, Any] | None = None) -> Operation:
    """End an operation along its own lifecycle table."""
    rule = OPERATION.rule(event)
    if operation.state not in rule.sources:
        raise LeaseLost(id=operation.id, epoch=operation.epoch)
    values: dict[str, Any] = {"state": rule.target, "waiting": None, "waiting_since": None}
    if rule.target not in ACTIVE:
        values["finished_at"] = utcnow()
    if error is not None:
        values["error"] = error
    return fenced(conn, operation, **values)


def request_cancel(conn: Connection, id: str) -> bool:
    """Ask for the cancellation of a running operation; False when it has ended."""
    changed = conn.execute(
        update(operations).where(operations.c.id == id, operations.c.state == "running").values(cancel_requested=True)
    )
    return changed.rowcount == 1


def retake(conn: Connection, operation_id: str, owner: str, known: frozenset[tuple[str, int]]) -> Operation | None:
    """Take an operation that needs attention back to undoing, each undo under a fresh attempt; None: it is not so.

    One of a (kind, version) not in `known` is left alone: nobody here could undo it, and nobody would take it up again.
    """
    found = get(conn, operation_id)
    if found is None or found.state not in OPERATION.rule("retry").sources or (found.kind, found.version) not in known:
        return None
    steps = {
        name: {**entry, "attempt": int(entry.get("attempt", 1)) + 1} if name.endswith(".undo") else entry
        for name, entry in found.steps.items()
    }
    for name, entry in found.steps.items():
        if entry.get("state") == "done":
            steps.setdefault(f"{name}.undo", {"attempt": 2})
    row = conn.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.state == found.state, operations.c.epoch == found.epoch)
        .values(
            state=OPERATION.rule("retry").target, owner=owner, epoch=found.epoch + 1, steps=steps, finished_at=None,
            lease_until=database_now() + LEASE_S, updated_at=utcnow(),
        )
        .returning(*_COLUMNS)
    ).one_or_none()  # fmt: skip
    return None if row is None else _of(row)
