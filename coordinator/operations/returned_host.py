"""What a host that was evicted and came back still holds of what the site has ended meanwhile.

Nothing is taken on a guess. An attachment or export is taken when its row ended after the eviction; data only when a
deletion that somebody asked for is written down as done, and lay there alone. All else stays, and is said.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, Table, func, select

from agent.wire.results import HostAttachment, HostExport, InventoryVolume
from coordinator.operations import clear_returned
from coordinator.operations.accept import Requester, accept
from coordinator.state import attachments, evictions, issues, operations, snapshots
from coordinator.state.issues import Issue
from coordinator.state.locks import hold_name
from coordinator.state.operations import Operation
from coordinator.state.tables.attachments import attachments as attachment_table
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import issues as issue_table
from coordinator.state.tables.images import images
from coordinator.state.tables.operations import operations as operation_table
from coordinator.state.tables.snapshots import snapshots as snapshot_table
from coordinator.state.tables.volumes import volumes

CODE = "host.returned"
_AGAIN_AFTER = datetime.timedelta(minutes=10)
_ORPHANS = ("volume.orphan", "snapshot.orphan", "image.orphan", "attachment.orphan", "export.orphan")


@dataclass(frozen=True, slots=True)
class Told:
    """What the host says that it holds."""

    held: Sequence[InventoryVolume]
    attached: Sequence[HostAttachment]
    exported: Sequence[HostExport]


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of one volume (or image), and is to be taken from the host."""

    resource_type: str
    id: str
    project_id: str
    backend: str
    attachments: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    data: bool = False

    @property
    def counts(self) -> dict[str, int]:
        found = {
            "attachments": len(self.attachments),
            "exports": len(self.exports),
            "snapshots": len(self.snapshots),
            f"{self.resource_type}s": int(self.data),
        }
        return {what: count for what, count in found.items() if count}


def look(conn: Connection, eviction: Row[Any], told: Told) -> list[Left]:
    """All that may be taken from the host, by volume."""
    found: dict[str, Left] = {}
    for one in told.attached:
        row = _ended(conn, attachment_table, one.attachment_id, eviction)
        if row is not None and not attachments.of_host(conn, one.volume_id, eviction.host_id):
            _add(found, one.volume_id, row.project_id, one.backend, attachments=(one.attachment_id,))
    for export in told.exported:
        row = _ended(conn, attachment_table, export.attachment_id, eviction)
        if row is not None:
            _add(found, export.volume_id, row.project_id, export.backend, exports=(export.attachment_id,))
    for item in told.held:
        if item.kind == "snapshot" and (row := _deleted_snapshot(conn, item.id, eviction)) is not None:
            _add(found, row.volume_id, row.project_id, item.backend, snapshots=(item.id,))
        elif item.kind == "volume" and (row := _deleted_volume(conn, item.id, eviction)) is not None:
            _add(found, item.id, row.project_id, item.backend, data=True)
        elif item.kind == "image" and (row := _deleted_image(conn, item.id, eviction)) is not None:
            found[item.id] = Left("image", item.id, row.owner, item.backend, data=True)
    return list(found.values())


def _add(found: dict[str, Left], volume_id: str, project_id: str, backend: str, **more: Any) -> None:
    known = found.get(volume_id, Left("volume", volume_id, project_id, backend))
    values: dict[str, Any] = {
        name: each if name == "data" else (*getattr(known, name), *each) for name, each in more.items()
    }
    found[volume_id] = replace(known, **values)


def _ended(conn: Connection, table: Table, wanted: str, eviction: Row[Any]) -> Row[Any] | None:
    """The row when it ended after the host was given up."""
    query = select(table).where(table.c.id == wanted, table.c.deleted, table.c.deleted_at >= eviction.at)
    return conn.execute(query).one_or_none()


def _deleted_volume(conn: Connection, volume_id: str, eviction: Row[Any]) -> Row[Any] | None:
    row = _ended(conn, volumes, volume_id, eviction)
    if row is None or not _lay_there_alone(row, eviction) or not _asked_for(conn, volume_id, "delete_volume", eviction):
        return None
    return None if snapshots.of_volume(conn, volume_id) else row


def _deleted_snapshot(conn: Connection, snapshot_id: str, eviction: Row[Any]) -> Row[Any] | None:
    row = _ended(conn, snapshot_table, snapshot_id, eviction)
    if row is None:
        return None
    volume = conn.execute(select(volumes).where(volumes.c.id == row.volume_id)).one_or_none()
    if volume is None or not _lay_there_alone(volume, eviction):
        return None
    alone = _asked_for(conn, snapshot_id, "delete_snapshot", eviction)
    whole = _asked_for(conn, row.volume_id, "delete_volume", eviction)
    return row if alone or any(snapshot_id in one.args.get("snapshots", ()) for one in whole) else None


def _deleted_image(conn: Connection, image_id: str, eviction: Row[Any]) -> Row[Any] | None:
    row = _ended(conn, images, image_id, eviction)
    if row is None or row.host_id != eviction.host_id:
        return None
    return row if _asked_for(conn, image_id, "delete_image", eviction) else None


def _lay_there_alone(volume: Row[Any], eviction: Row[Any]) -> bool:
    """What several hosts serve may be in use by another one."""
    return volume.host_id == eviction.host_id and volume.cluster_name is None


def _asked_for(conn: Connection, resource_id: str, kind: str, eviction: Row[Any]) -> list[Operation]:
    """Deletions that have ended well since. A volume that was forgotten or let go has none."""
    found = operations.listing(conn, resource_id=resource_id)
    return [
        one for one in found
        if one.kind == kind and one.state == "done" and one.finished_at is not None and one.finished_at >= eviction.at
    ]  # fmt: skip


def accept_clearing(
    conn: Connection, owner: str, eviction: Row[Any], told: Told, *, stopped: int, going: bool
) -> tuple[list[Operation], bool]:
    """Begin to take what is left, each thing by an operation; notes when nothing is left. True: something is at work.

    `stopped` counts jobs that were ended just now; `going`: some of them have not ended yet.
    """
    hold_name(conn, f"host {eviction.host_id}")
    fresh = evictions.get(conn, eviction.id)
    if fresh is None or fresh.cleared_at is not None or evictions.of_host(conn, eviction.host_id) is not None:
        return [], False
    if stopped:
        evictions.took(conn, eviction.id, {"jobs": stopped})
    left = look(conn, eviction, told)
    busy = [one for one in left if operations.active_of(conn, one.id) is not None]
    busy_with = _being_taken(conn, eviction)
    begun = [_begin(conn, owner, eviction, one) for one in left if not _tried(conn, one)]
    if not left and not going and not busy_with:
        evictions.cleared(conn, eviction.host_id)
    tell(conn, eviction.host_id, sorted({one.id for one in left} | busy_with))
    return begun, bool(busy or begun or busy_with)


def _being_taken(conn: Connection, eviction: Row[Any]) -> set[str]:
    """What is at work still: the host may hold it no more, yet it is not counted before its operation has ended."""
    query = select(operation_table.c.resource_id, operation_table.c.args).where(
        operation_table.c.kind == clear_returned.KIND, operations.is_active()
    )
    return {row.resource_id for row in conn.execute(query) if row.args["eviction_id"] == eviction.id}


def _begin(conn: Connection, owner: str, eviction: Row[Any], left: Left) -> Operation:
    requester = Requester(left.project_id, eviction.user_id, eviction.request_id, owner)
    args = {
        "eviction_id": eviction.id,
        "host_id": eviction.host_id,
        "backend": left.backend,
        "attachments": list(left.attachments),
        "exports": list(left.exports),
        "snapshots": list(left.snapshots),
        "data": left.data,
        "counts": left.counts,
    }
    return accept(
        conn, requester, kind=clear_returned.KIND, resource_type=left.resource_type, resource_id=left.id, args=args
    )


def _tried(conn: Connection, left: Left) -> bool:
    """Something is at work on it, or it could not be taken a moment ago."""
    if operations.active_of(conn, left.id) is not None:
        return True
    last = next((one for one in operations.listing(conn, resource_id=left.id) if one.kind == clear_returned.KIND), None)
    return last is not None and last.finished_at is not None and last.finished_at > utcnow() - _AGAIN_AFTER


def follow(conn: Connection) -> None:
    """Keep the issues of hosts that came back and were cleared as long as there is something to decide."""
    for host_id in issues.open_resources(conn, CODE):
        row = evictions.last_return(conn, host_id)
        if row is not None and row.cleared_at is not None:
            tell(conn, host_id, [])


def tell(conn: Connection, host_id: str, left: Sequence[str]) -> None:
    """Say what was taken, what is left to be taken, and what a person has to decide; closed when that is nothing."""
    row = evictions.last_return(conn, host_id)
    if row is None:
        return
    damaged = conn.execute(
        select(func.count()).where(
            volumes.c.host_id == host_id, volumes.c.status == "error", volumes.c.attention.contains("was evicted"),
            ~volumes.c.deleted,
        )
    ).scalar_one()  # fmt: skip
    unknown = conn.execute(
        select(func.count()).where(
            issue_table.c.host_id == host_id, issue_table.c.code.in_(_ORPHANS), issue_table.c.closed_at.is_(None)
        )
    ).scalar_one()
    if not damaged and not unknown and not left:
        issues.close(conn, CODE, host_id)
        return
    said = [
        f"{len(left)} things that were ended meanwhile are still being taken from it" if left else "",
        f"{damaged} volumes lie there as they were left" if damaged else "",
        f"it holds {unknown} things that no row knows" if unknown else "",
    ]
    taken = ", ".join(f"{count} {what}" for what, count in sorted((row.taken or {}).items())) or "nothing"
    remedy = {
        "See whether each is whole, then make it available: brickyard volume repair VOLUME (its issue names it "
        "until then); or delete it.": damaged,
        "Look at each of them by hand: brickyard issue list.": unknown,
        "See why: brickyard operation list.": left,
    }
    issue = Issue(
        code=CODE,
        resource_type="host",
        resource_id=host_id,
        host_id=host_id,
        sentence=f"Host {host_id} came back after it was evicted; taken from it: {taken}. Left: "
        f"{'; '.join(one for one in said if one)}.",
        remedy=" ".join(words for words, needed in remedy.items() if needed),
        details={"taken": dict(row.taken or {}), "damaged": damaged, "unknown": unknown, "left": list(left[:20])},
    )
    issues.raise_issue(conn, issue)


def ended_operations(conn: Connection, ids: Iterable[str]) -> dict[str, int]:
    """Of these operations those that have ended, with the epoch that they had."""
    query = select(operation_table.c.id, operation_table.c.epoch).where(
        operation_table.c.id.in_(sorted(ids)), operation_table.c.state.not_in(operations.ACTIVE)
    )
    return {row.id: row.epoch for row in conn.execute(query)}
