"""What no one needs any more: found in a read, dropped in short writes, a bounded number of rows at a time."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, delete, exists, or_, select

from coordinator.state.tables.attachments import attachments, generations
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.enrolment import certificates, join_tokens
from coordinator.state.tables.events import events
from coordinator.state.tables.fleet import issues
from coordinator.state.tables.identity import identity_revoked
from coordinator.state.tables.images import image_properties, images
from coordinator.state.tables.messages import messages
from coordinator.state.tables.operations import operations
from coordinator.state.tables.snapshots import snapshot_metadata, snapshots
from coordinator.state.tables.volumes import (
    volume_admin_metadata,
    volume_image_metadata,
    volume_metadata,
    volumes,
)

BATCH = 500
_ENDED = ("done", "failed", "cancelled")
_TOKENS_KEPT = datetime.timedelta(days=1)
_CERTIFICATES_KEPT = datetime.timedelta(days=30)
Due = Mapping[str, list[str | int]]


@dataclass(frozen=True, slots=True)
class Kept:
    """How long rows are kept after their end. What needs attention, is open or lives is kept for ever."""

    operations: datetime.timedelta
    events: datetime.timedelta
    issues: datetime.timedelta
    deleted: datetime.timedelta


@dataclass(frozen=True, slots=True)
class _Rule:
    """Rows of `table` that may go when `over`; rows of `parts` (by these columns) go with them."""

    table: Table
    over: ColumnElement[bool]
    parts: tuple[Column[str], ...] = ()

    @property
    def key(self) -> Column[str]:
        return next(iter(self.table.primary_key.columns))


def due(conn: Connection, kept: Kept, batch: int = BATCH) -> Due:
    """Keys of up to `batch` rows per table that may go; a table with none is left out. Order: children first."""
    found: dict[str, list[str | int]] = {
        name: list(conn.execute(select(rule.key).where(rule.over).limit(batch)).scalars())
        for name, rule in _rules(kept).items()
    }
    return {name: keys for name, keys in found.items() if keys}


def drop(conn: Connection, kept: Kept, found: Due) -> dict[str, int]:
    """Drop these rows where it still holds that they may go; returns how many of each table."""
    counts: dict[str, int] = {}
    for name, rule in _rules(kept).items():
        keys = found.get(name)
        if not keys:
            continue
        sure = list(conn.execute(select(rule.key).where(rule.key.in_(keys), rule.over)).scalars())
        for part in rule.parts:
            conn.execute(delete(part.table).where(part.in_(sure)))
        counts[name] = conn.execute(delete(rule.table).where(rule.key.in_(sure))).rowcount
    return counts


def _rules(kept: Kept) -> dict[str, _Rule]:
    now = utcnow()
    gone = now - kept.deleted
    of_volume = (
        volume_metadata.c.volume_id,
        volume_admin_metadata.c.volume_id,
        volume_image_metadata.c.volume_id,
        generations.c.volume_id,
    )
    unused = ~or_(
        exists().where(attachments.c.volume_id == volumes.c.id), exists().where(snapshots.c.volume_id == volumes.c.id)
    )
    over = operations.c.state.in_(_ENDED) & (operations.c.finished_at < now - kept.operations)
    return {
        "operations": _Rule(operations, over),
        "events": _Rule(events, events.c.at < now - kept.events),
        "messages": _Rule(messages, messages.c.guaranteed_until < now),
        "issues": _Rule(issues, issues.c.closed_at < now - kept.issues),
        "revoked tokens": _Rule(identity_revoked, identity_revoked.c.expires < _epoch(now)),
        "join tokens": _Rule(join_tokens, join_tokens.c.expires_at < now - _TOKENS_KEPT),
        "certificates": _Rule(certificates, _succeeded(now)),
        "attachments": _Rule(attachments, attachments.c.deleted & (attachments.c.deleted_at < gone)),
        "snapshots": _Rule(
            snapshots, snapshots.c.deleted & (snapshots.c.deleted_at < gone), (snapshot_metadata.c.snapshot_id,)
        ),
        "volumes": _Rule(volumes, and_(volumes.c.deleted, volumes.c.deleted_at < gone, unused), of_volume),
        "images": _Rule(images, images.c.deleted & (images.c.deleted_at < gone), (image_properties.c.image_id,)),
    }


def _succeeded(now: datetime.datetime) -> ColumnElement[bool]:
    """A certificate that ran out long ago, and whose holder has a later one: the last is how a host is recognised."""
    later = certificates.alias()
    newer = exists().where(
        later.c.role == certificates.c.role,
        later.c.key_sha256 == certificates.c.key_sha256,
        later.c.installed_at.is_not(None),
        later.c.not_after > certificates.c.not_after,
    )
    return (certificates.c.not_after < now - _CERTIFICATES_KEPT) & newer


def _epoch(moment: datetime.datetime) -> float:
    return moment.replace(tzinfo=datetime.UTC).timestamp()
