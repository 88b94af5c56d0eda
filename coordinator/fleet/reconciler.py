"""Comparing the three truths of one host: rows, what its back ends hold, what its kernel says.

Differences become issues with a remedy. Nothing is repaired silently, and no data is ever deleted here.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, or_, select

from agent.base.errors import NotFound
from agent.wire.results import HostAttachment, HostExport, InventoryVolume
from coordinator.fleet import told_by_host
from coordinator.fleet.directory import Known
from coordinator.lifecycle.volume import VOLUME
from coordinator.state import issues
from coordinator.state.database import Database
from coordinator.state.issues import Issue
from coordinator.state.operations import is_active
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts
from coordinator.state.tables.images import images
from coordinator.state.tables.operations import operations
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes
from coordinator.state.volumes import backend_of

CODES = (
    "backend.away",
    "backend.gone",
    "volume.missing-data",
    "volume.size-differs",
    "volume.orphan",
    "snapshot.missing-data",
    "snapshot.orphan",
    "attachment.missing",
    "attachment.orphan",
    "export.missing",
    "export.orphan",
    "image.missing-data",
    "image.orphan",
)

_BUSY = VOLUME.transient | {"deleted"}
_CHUNK = 500
Held = dict[tuple[str, str], InventoryVolume]


class Reconciler:
    """Examines one host when the poller says so. What an operation is at work on is left out of the comparison."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def examine(self, known: Known) -> bool:
        """Compare, and store the issues found; those that no longer hold are closed. True where nothing differed."""
        host_id = known.host.name
        began = utcnow()
        before = await self._db.read(_busy)
        try:
            inventory, away = await known.client.inventory()
            attached = await known.client.attachments()
            exported = await known.client.exports()
            told = told_by_host.of_host(host_id, await known.client.issues(), CODES)
        except NotFound:
            return True

        def compared(conn: Connection) -> tuple[list[Issue], set[str], bool]:
            gone = gone_backends(conn, host_id)
            found = [
                *differences(conn, host_id, inventory, attached, away, gone=gone),
                *of_exports(conn, host_id, exported),
            ]
            return found, before | _moved(conn, [issue.resource_id for issue in found], began), bool(away or gone)

        found, unsure, in_part = await self._db.read(compared)

        def store(conn: Connection) -> None:
            for issue in found:
                if issue.resource_id not in unsure:
                    issues.raise_issue(conn, issue)
            # An open issue of what can not be judged this time is neither confirmed nor closed.
            judged = [code for code in CODES if not (in_part and code.startswith(("volume.", "snapshot.")))]
            issues.settle(conn, host_id, judged, {(issue.code, issue.resource_id) for issue in found})
            told_by_host.store(conn, host_id, told, unsure)

        def open_before(conn: Connection) -> bool:
            return issues.any_open(conn, host_id, CODES) or bool(told_by_host.told_open(conn, host_id))

        known_before: bool = await self._db.read(open_before)
        if found or told or known_before:
            await self._db.write(store)
        return not found and not told


def _busy(conn: Connection) -> set[str]:
    """Resources that an operation was at work on before the host was asked: what it said of them may be old."""

    rows = conn.execute(select(operations.c.resource_id).where(is_active()))
    return set(rows.scalars())


def _moved(conn: Connection, asked: list[str], since: datetime.datetime) -> set[str]:
    """Which of these were made, changed or deleted while the host was asked: what it said of them may be old."""
    moved: set[str] = set()
    for start in range(0, len(asked), _CHUNK):
        chunk = asked[start : start + _CHUNK]
        for table in (volumes, snapshots, images, attachments):
            changed = or_(table.c.created_at >= since, table.c.updated_at >= since)
            moved.update(conn.execute(select(table.c.id).where(table.c.id.in_(chunk), changed)).scalars())
    return moved


def differences(
    conn: Connection, host_id: str, inventory: list[InventoryVolume], attached: list[HostAttachment],
    away: Mapping[str, str] = MappingProxyType({}), *, gone: Collection[str] = (),
) -> list[Issue]:  # fmt: skip
    """All differences of one host, as issues that are not stored yet; of back ends `away` or `gone` only that."""
    held: Held = {(item.kind, item.id): item for item in inventory}
    found = [_away(host_id, backend, reason) for backend, reason in away.items()]
    found += [_gone(host_id, backend) for backend in sorted(gone)]
    unseen = {*away, *gone}
    found += [*_volumes(conn, host_id, held, unseen), *_snapshots(conn, host_id, held, unseen)]
    found += _images(conn, host_id, held)
    found += _attachments(conn, host_id, attached)
    known = _known_ids(conn, [held_id for _, held_id in held])
    for (kind, held_id), item in held.items():
        if kind in {"volume", "snapshot", "image"} and held_id not in known:
            found.append(
                Issue(
                    code=f"{kind}.orphan",
                    resource_type=kind,
                    resource_id=held_id,
                    host_id=host_id,
                    sentence=f"Back end {host_id}@{item.backend} holds {kind} {held_id} "
                    f"({item.allocated_bytes} bytes allocated), which no row knows.",
                    remedy=f"Look at it, then delete it by hand on host {host_id}; it is never deleted by itself.",
                    details=item.model_dump(mode="json"),
                )
            )
    return found


def _known_ids(conn: Connection, asked: list[str]) -> set[str]:
    """Which of these ids a live row has."""
    known: set[str] = set()
    for start in range(0, len(asked), _CHUNK):
        chunk = asked[start : start + _CHUNK]
        for table in (volumes, snapshots, images):
            known.update(conn.execute(select(table.c.id).where(table.c.id.in_(chunk), ~table.c.deleted)).scalars())
    return known


def _away(host_id: str, backend: str, reason: str) -> Issue:
    return Issue(
        code="backend.away",
        resource_type="backend",
        resource_id=f"{host_id}@{backend}"[:64],
        host_id=host_id,
        sentence=f"Back end {host_id}@{backend} can not be used: {reason}",
        remedy=f"Run on host {host_id}: brickyard-agent doctor. It is tried again by itself.",
    )


def gone_backends(conn: Connection, host_id: str) -> set[str]:
    """Where volumes of a host lie though its configuration names no such back end any more."""
    facts = conn.execute(select(hosts.c.facts).where(hosts.c.id == host_id)).scalar_one_or_none() or {}
    configured = facts.get("backends")
    if configured is None:  # an agent of an older release does not say
        return set()
    there = (volumes.c.host_id == host_id, volumes.c.backend.is_not(None), ~volumes.c.deleted)
    rows: Any = conn.execute(select(volumes.c.backend, volumes.c.pool).where(*there).distinct())
    return {backend_of(row) for row in rows if row.backend not in configured}


def _gone(host_id: str, backend: str) -> Issue:
    name = backend.partition("#")[0]
    return Issue(
        code="backend.gone",
        resource_type="backend",
        resource_id=f"{host_id}@{backend}"[:64],
        host_id=host_id,
        sentence=f"Volumes lie in back end {host_id}@{backend}, which the host's configuration does not name any more.",
        remedy=f"Put [backends.{name}] back into the configuration of host {host_id}, then: "
        "systemctl reload brickyard-agent.",
    )


def _volumes(conn: Connection, host_id: str, held: Held, away: Collection[str]) -> list[Issue]:
    rows = conn.execute(select(volumes).where(volumes.c.host_id == host_id, ~volumes.c.deleted))
    found = []
    for row in rows:
        if row.status in _BUSY or row.status.startswith("error") or backend_of(row) in away:
            continue
        item = held.get(("volume", row.id))
        if item is None:
            found.append(_missing("volume", row, host_id))
        elif row.device_bytes is not None and item.device_bytes != row.device_bytes:
            sentence = (
                f"Volume {row.id} has {item.device_bytes} bytes on host {host_id}, its row says {row.device_bytes}."
            )
            found.append(_volume_issue("volume.size-differs", row, host_id, sentence))
    return found


def _snapshots(conn: Connection, host_id: str, held: Held, away: Collection[str]) -> list[Issue]:
    query = (
        select(snapshots, volumes.c.backend, volumes.c.pool)
        .join(volumes, volumes.c.id == snapshots.c.volume_id)
        .where(volumes.c.host_id == host_id, ~snapshots.c.deleted, snapshots.c.status == "available")
    )
    return [
        _missing("snapshot", row, host_id)
        for row in conn.execute(query)
        if ("snapshot", row.id) not in held and backend_of(row) not in away
    ]


def _images(conn: Connection, host_id: str, held: Held) -> list[Issue]:
    query = select(images).where(images.c.host_id == host_id, ~images.c.deleted, images.c.status == "active")
    return [
        Issue(
            code="image.missing-data",
            resource_type="image",
            resource_id=row.id,
            host_id=host_id,
            sentence=f"Image {row.id} is active, but host {host_id} does not hold its bytes.",
            remedy=f"Restore the file on host {host_id}, or delete the image: openstack image delete {row.id}",
        )
        for row in conn.execute(query)
        if ("image", row.id) not in held
    ]


def _attachments(conn: Connection, host_id: str, attached: list[HostAttachment]) -> list[Issue]:
    live = select(attachments).where(
        attachments.c.host_id == host_id, attachments.c.owner == "agent", ~attachments.c.deleted
    )
    rows = {row.id: row for row in conn.execute(live)}
    there = {item.attachment_id: item for item in attached}
    found = []
    for attachment_id, row in rows.items():
        item = there.get(attachment_id)
        if row.attach_status == "attached" and (item is None or item.state != "attached"):
            state = "is not known there" if item is None else f"is {item.state} there"
            found.append(
                Issue(
                    code="attachment.missing",
                    resource_type="attachment",
                    resource_id=attachment_id,
                    host_id=host_id,
                    project_id=row.project_id,
                    sentence=f"Attachment {attachment_id} of volume {row.volume_id} should be there, but {state}.",
                    remedy=f"brickyard volume repair --dry-run {row.volume_id}",
                )
            )
    for attachment_id, item in there.items():
        if attachment_id not in rows:
            found.append(
                Issue(
                    code="attachment.orphan",
                    resource_type="attachment",
                    resource_id=attachment_id,
                    host_id=host_id,
                    sentence=f"Host {host_id} keeps attachment {attachment_id} of volume {item.volume_id}, "
                    "which no row knows.",
                    remedy=f"brickyard volume repair --dry-run {item.volume_id}",
                )
            )
    return found


def of_exports(conn: Connection, host_id: str, exported: list[HostExport]) -> list[Issue]:
    """What the host offers to others, beside the attachments that need it."""
    query = (
        select(attachments)
        .join(volumes, volumes.c.id == attachments.c.volume_id)
        .where(volumes.c.host_id == host_id, attachments.c.transport.is_not(None), ~attachments.c.deleted)
    )
    rows = {row.id: row for row in conn.execute(query)}
    there = {item.attachment_id: item for item in exported}
    found = []
    for row in rows.values():
        item = there.get(row.id)
        if row.attach_status == "attached" and (item is None or item.state != "exported"):
            reason = "is not known there" if item is None else f"is not in its kernel: {item.reason}"
            sentence = f"Host {host_id} should offer volume {row.volume_id} to {row.attached_host}, but that {reason}."
            remedy = f"Run `brickyard-agent doctor` on host {host_id}; it is offered again when its agent starts."
            found.append(_export_issue("export.missing", row.id, host_id, sentence, remedy))
    for attachment_id, item in there.items():
        if attachment_id not in rows:
            sentence = (
                f"Host {host_id} offers volume {item.volume_id} to {item.initiator} ({item.protocol}), "
                "which no attachment needs."
            )
            remedy = "It ends with the next attach or detach of the volume; until then the consumer can use it."
            found.append(_export_issue("export.orphan", attachment_id, host_id, sentence, remedy))
    return found


def _export_issue(code: str, attachment_id: str, host_id: str, sentence: str, remedy: str) -> Issue:
    return Issue(
        code=code, resource_type="attachment", resource_id=attachment_id, host_id=host_id, sentence=sentence,
        remedy=remedy,
    )  # fmt: skip


def _missing(noun: str, row: Row[Any], host_id: str) -> Issue:
    sentence = f"{noun.capitalize()} {row.id} is {row.status}, but host {host_id} does not hold its data."
    return _volume_issue(f"{noun}.missing-data", row, host_id, sentence, noun)


def _volume_issue(code: str, row: Row[Any], host_id: str, sentence: str, noun: str = "volume") -> Issue:
    return Issue(
        code=code,
        resource_type=noun,
        resource_id=row.id,
        host_id=host_id,
        project_id=row.project_id,
        sentence=sentence,
        remedy=f"brickyard {noun} repair --dry-run {row.id}",
    )
