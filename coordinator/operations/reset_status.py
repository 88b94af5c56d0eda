"""os-reset_status, without lies: a status is corrected along the lifecycle table, where the attachments bear it out.

Nothing here talks to a host; whether the data are there is for `repair_volume` to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import Conflict, Invalid
from coordinator.operations.accept import Requester
from coordinator.operations.attach_host import accept_detach
from coordinator.operations.connect_volume import accept_disconnect
from coordinator.state import attachments, events, operations, volumes
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import move

_ERRORS = ("error", "error_deleting", "error_extending", "error_managing", "error_restoring")
VOLUME_TARGETS = ("available", "error", "in-use")
SNAPSHOT_TARGETS = ("available", "error")


class StillAttached(Conflict):
    code = "volume.still-attached"
    sentence = "Cannot reset-state to {status} because attachments still exist: {holders}."
    hint = 'Remove them first: {remedy}; with "force" they are cut off.'


class NoSuchTarget(Invalid):
    code = "reset.no-such-target"
    sentence = "Invalid input: a {noun} can not be reset to {status}; possible are: {possible}."
    hint = "Every other status belongs to work that is going on."


class AtWork(Conflict):
    code = "reset.at-work"
    status = 400
    sentence = "Invalid {noun}: {noun} {id} has status {status}; {kind} ({operation}) is at work on it."
    hint = (
        "Cancel it: brickyard operation cancel {operation}. Where its host does not come back, give that up: "
        "brickyard host evict HOST."
    )


def holder(row: Row[Any]) -> str:
    """Who holds an attachment, in words."""
    where = row.host_id or row.attached_host or "an unknown host"
    by = f" for server {row.instance_id}" if row.instance_id else ""
    return f"attachment {row.id} ({row.attach_status}) on host {where}, kept by {row.owner}{by}"


def detach_command(row: Row[Any]) -> str:
    """The command that ends an attachment in the right way."""
    if row.owner == "agent":
        return f"brickyard attachment delete {row.id}"
    return f"openstack volume attachment delete {row.id}"


def still_attached(status: str, live: Sequence[Row[Any]]) -> StillAttached:
    """The refusal that names every holder."""
    return StillAttached(
        status=status,
        holders="; ".join(holder(row) for row in live),
        remedy=" and ".join(detach_command(row) for row in live),
    )


@dataclass(frozen=True, slots=True)
class Reset:
    """What is asked for. `force` ends what keepers still have, `vouched`: a service token came with the request."""

    status: str | None = None
    attach_status: str | None = None
    force: bool = False
    vouched: bool = False


def reset_volume(conn: Connection, requester: Requester, volume_id: str, wanted: Reset) -> list[Operation]:
    """Correct a volume's status; `attach_status` "detached" also ends attachments that are in nobody's keeping.

    Returns the operations that cut off devices and exports on hosts; the status follows from them.
    Raises StillAttached (409), NoSuchTarget, AtWork and TransitionRefused (400).
    """
    row = volumes.get(conn, volume_id)  # Held first: what ends an attachment meanwhile is seen, or waits.
    with _refused_at_work(conn, "volume", volume_id):
        return _reset_volume(conn, requester, row, wanted)


def _reset_volume(conn: Connection, requester: Requester, row: Row[Any], wanted: Reset) -> list[Operation]:
    volume_id, status = row.id, wanted.status
    live = attachments.of_volume(conn, volume_id)
    if wanted.attach_status == "attached" and not live:
        raise Invalid(reason="Cannot reset attach_status to attached because the volume has no attachments.")
    if wanted.attach_status == "detached" and live:
        begun = _end(conn, requester, live, wanted)
        if begun:
            return begun
        live, status = [], status or "available"
    match status:
        case None:
            pass
        case "available":
            if live:
                raise still_attached(status, live)
            if row.status != "available":
                _free(conn, row)
        case "error":
            if row.status != "error":
                move(conn, "volume", volume_id, "damaged")
        case "in-use":
            if not any(item.attach_status == "attached" for item in live):
                raise Invalid(reason="Cannot reset-state to in-use because the volume has no attachments.")
            move(conn, "volume", volume_id, "used_again", attach_status="attached", attention=None)
        case _:
            raise NoSuchTarget(noun="volume", status=status, possible=", ".join(VOLUME_TARGETS))
    return []


@contextmanager
def _refused_at_work(conn: Connection, noun: str, id: str) -> Iterator[None]:
    """Whoever is refused since something is at work is told what, and what ends it."""
    try:
        yield
    except TransitionRefused as refused:
        found = operations.active_of(conn, id)
        if found is None:
            raise
        now = refused.context["status"]
        raise AtWork(noun=noun, id=id, status=now, operation=found.id, kind=found.kind) from refused


def _end(conn: Connection, requester: Requester, live: Sequence[Row[Any]], wanted: Reset) -> list[Operation]:
    """End the attachments; what needs work on a host by the operations that are returned."""
    kept = [row for row in live if row.owner == "agent"]
    used = [row for row in live if row.owner == "compute" and row.attach_status == "attached" and not wanted.vouched]
    if (kept or used) and not wanted.force:
        raise still_attached("detached", live)
    begun = [accept_detach(conn, requester, row.id, force=wanted.force) for row in kept]
    for row in live:
        if row.owner != "agent" and row.transport is not None:
            begun.append(accept_disconnect(conn, requester, row, keep=False))
        elif row.owner != "agent":
            move(conn, "attachment", row.id, "gone", detach_time=utcnow())
            events.record(conn, requester.change("attachment", row.id), "detach_volume.end", {"forced": True})
    return begun


def _free(conn: Connection, row: Row[Any]) -> None:
    event = "attachment_gone" if row.status in {"reserved", "attaching", "detaching", "in-use"} else "repaired"
    guards = (volumes.has_no_attachments(row.id),)
    move(conn, "volume", row.id, event, guards=guards, attach_status="detached", attention=None)


def reset_snapshot(conn: Connection, snapshot_id: str, status: str) -> None:
    """Correct a snapshot's status; raises NoSuchTarget, AtWork, TransitionRefused (400)."""
    if status not in SNAPSHOT_TARGETS:
        raise NoSuchTarget(noun="snapshot", status=status, possible=", ".join(SNAPSHOT_TARGETS))
    with _refused_at_work(conn, "snapshot", snapshot_id):
        if status == "available":
            move(conn, "snapshot", snapshot_id, "repaired", attention=None)
        else:
            move(conn, "snapshot", snapshot_id, "damaged")
