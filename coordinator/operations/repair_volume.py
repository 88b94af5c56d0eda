"""Repairing a volume's row by the three truths: what it says, what its back end holds, what its host keeps attached.

`plan` only looks and puts into words; `act` takes the safe actions of a plan, each along the lifecycle table and only
if the row is still as it was when the plan was made. No data are ever touched, except to end a deletion that was
asked for.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row

from agent.wire.results import HostAttachment, InventoryVolume
from coordinator.lifecycle.volume import VOLUME
from coordinator.operations.accept import Requester
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.reset_status import detach_command, holder
from coordinator.state import attachments, operations, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move

Kind = Literal["make-available", "mark-damaged", "correct-size", "finish-delete", "by-hand", "wait"]
SAFE: frozenset[Kind] = frozenset({"make-available", "mark-damaged", "correct-size", "finish-delete"})
_MENDABLE = VOLUME.rule("repaired").sources


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do; `by-hand` and `wait` are for people to read."""

    kind: Kind
    sentence: str

    @property
    def safe(self) -> bool:
        return self.kind in SAFE


@dataclass(frozen=True, slots=True)
class Seen:
    """What was told by the host that the volume lies on. `held` None: its back end has no such data.

    `as_of` is when the row had last changed before the host was asked: what was told of an older row may be old.
    """

    host_id: str | None
    as_of: datetime.datetime | None = None
    reached: bool = False
    reason: str = ""
    held: InventoryVolume | None = None
    attached: Sequence[HostAttachment] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The row, its attachments and what is at work on it, with what to do."""

    row: Row[Any]
    attachments: Sequence[Row[Any]]
    at_work: Operation | None
    seen: Seen
    actions: tuple[Action, ...] = field(default=())

    @property
    def differs(self) -> bool:
        return bool(self.actions)


def seen_of(before: Row[Any], inventory: Sequence[InventoryVolume], attached: Sequence[HostAttachment]) -> Seen:
    """Pick one volume out of what its host told; `before` is its row as read before the host was asked."""
    held = next((item for item in inventory if item.kind == "volume" and item.id == before.id), None)
    theirs = [item for item in attached if item.volume_id == before.id]
    return Seen(before.host_id, before.updated_at, True, "", held, theirs)


def plan(conn: Connection, volume_id: str, seen: Seen) -> Plan:
    """Compare; raises NotFound."""
    row = volumes.get(conn, volume_id)
    live = attachments.of_volume(conn, volume_id)
    at_work = operations.active_of(conn, volume_id)
    return Plan(row, live, at_work, seen, tuple(_actions(row, live, at_work, seen)))


def _actions(row: Row[Any], live: Sequence[Row[Any]], at_work: Operation | None, seen: Seen) -> list[Action]:
    if at_work is not None:
        waiting = f" It waits: {at_work.waiting}." if at_work.waiting else ""
        return [Action("wait", f"Operation {at_work.id} ({at_work.kind}) is at work on it.{waiting} "
                               f"Watch it with: brickyard operation watch {at_work.id}.")]  # fmt: skip
    if row.updated_at != seen.as_of:
        return [Action("wait", "It changed while its host was asked; repeat this.")]
    if row.host_id is None:
        return _nowhere(row)
    if seen.host_id != row.host_id or not seen.reached:
        reason = f" ({seen.reason})" if seen.reason else ""
        return [Action("by-hand", f"Host {row.host_id} could not be asked{reason}; bring it back, then repeat this.")]
    actions = _attachments(live, seen)
    if seen.held is None:
        return [*actions, *_without_data(row)]
    return [*actions, *_with_data(row, live, seen, seen.held)]


def _nowhere(row: Row[Any]) -> list[Action]:
    if row.status in {"available", "in-use"}:
        return [Action("mark-damaged", f"It is {row.status}, but lies on no host: it is marked error.")]
    return [Action("by-hand", f"It never came to lie on a host; delete it: openstack volume delete {row.id}.")]


def _without_data(row: Row[Any]) -> list[Action]:
    where = f"Back end {row.host_id}@{row.backend} does not hold its data"
    if row.status in {"error_deleting", "deleting"}:
        return [Action("finish-delete", f"{where}: the deletion that was asked for is finished, the row goes too.")]
    if row.status == "error":
        return [Action("by-hand", f"{where}. Restore the file, or delete it: openstack volume delete {row.id}.")]
    if row.status in VOLUME.rule("damaged").sources:
        return [Action("mark-damaged", f"{where}: it is marked error, so that nobody relies on it. "
                                       "Should the data come back, repair makes it available again.")]  # fmt: skip
    return [Action("by-hand", f"{where}, and it is {row.status}: end its attachments, then repeat this.")]


def _with_data(row: Row[Any], live: Sequence[Row[Any]], seen: Seen, held: InventoryVolume) -> list[Action]:
    actions: list[Action] = []
    expected = row.device_bytes
    if expected is not None and held.device_bytes < expected:
        fewer = expected - held.device_bytes
        return [Action("by-hand", f"Its data have {held.device_bytes} bytes, {fewer} fewer than the row says: "
                                  "something is missing. Compare with a backup before it is used.")]  # fmt: skip
    if expected != held.device_bytes:
        actions.append(Action("correct-size", f"Its data have {held.device_bytes} bytes; the row says {expected}. The "
                                              f"row is corrected; users see {row.size} GiB as before."))  # fmt: skip
    if row.status not in _MENDABLE:
        return actions
    if row.launched_at is None:
        return [Action("by-hand", "It was never finished, so nobody can say whether its data are whole; delete it: "
                                  f"openstack volume delete {row.id}.")]  # fmt: skip
    if live or seen.attached:
        return [*actions, Action("by-hand", "It stays in error until its attachments have ended.")]
    actions.append(Action("make-available", f"Its data are there and whole, and nothing is attached: "
                                            f"status {row.status} becomes available."))  # fmt: skip
    return actions


def _attachments(live: Sequence[Row[Any]], seen: Seen) -> list[Action]:
    known, there = {row.id: row for row in live}, {item.attachment_id: item for item in seen.attached}
    found = [
        Action("by-hand", f"The host does not know {holder(row)}. End it: {detach_command(row)}.")
        for row in live
        if row.owner == "agent" and row.attach_status == "attached" and row.id not in there
    ]
    found += [
        Action("by-hand", f"The host keeps attachment {item.attachment_id} at {item.device} ({item.state}), "
                          "which no row knows: see who uses the device, then detach it on the host.")
        for item in seen.attached
        if item.attachment_id not in known
    ]  # fmt: skip
    return found


def act(conn: Connection, requester: Requester, wanted: Plan) -> tuple[list[Action], Operation | None]:
    """Take the safe actions of a plan that still holds; returns them, and the operation that one of them began.

    A plan that would be another one by now is not followed: nothing is done, and nothing returned.
    """
    fresh = plan(conn, wanted.row.id, wanted.seen)
    if fresh.actions != wanted.actions or fresh.row.status != wanted.row.status:
        return [], None
    done: list[Action] = []
    operation: Operation | None = None
    for action in fresh.actions:
        if not action.safe:
            continue
        match action.kind:
            case "make-available":
                guards = (volumes.has_no_attachments(fresh.row.id),)
                move(conn, "volume", fresh.row.id, "repaired", guards=guards, attach_status="detached", attention=None)
            case "mark-damaged":
                move(conn, "volume", fresh.row.id, "damaged", attention=action.sentence)
            case "correct-size":
                _correct(conn, fresh)
            case "finish-delete":
                operation = accept_delete(conn, requester, fresh.row.id)
        done.append(action)
    return done, operation


def _correct(conn: Connection, found: Plan) -> None:
    """The header keeps its size; what is inside grows or shrinks with the device."""
    row, held = found.row, found.seen.held
    assert held is not None
    values: dict[str, Any] = {"device_bytes": held.device_bytes}
    if row.device_bytes is not None and row.usable_bytes is not None:
        values["usable_bytes"] = held.device_bytes - (row.device_bytes - row.usable_bytes)
    volumes.set_values(conn, row.id, **values)
