"""What no one needs any more: found in a read, dropped in short writes, a bounded number of rows at a time."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, delete, exists, func, not_, or_, select

from agent.base.faults import declare, fault_point
from coordinator.state.events import dropping
from coordinator.state.tables.archive import archive
from coordinator.state.tables.attachments import attachments, generations
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.enrolment import certificates, join_tokens
from coordinator.state.tables.events import event_consumers, events
from coordinator.state.tables.fleet import issues
from coordinator.state.tables.identity import identity_revoked
from coordinator.state.tables.images import image_properties, images
from coordinator.state.tables.messages import messages
from coordinator.state.tables.operations import operations
from coordinator.state.tables.snapshots import snapshot_metadata, snapshots
from coordinator.state.tables.transfers import transfers
from coordinator.state.tables.types import (
    default_types,
    type_access,
    type_encryption,
    type_extra_specs,
    type_metadata,
    volume_types,
)
from coordinator.state.tables.volumes import (
    volume_admin_metadata,
    volume_image_metadata,
    volume_metadata,
    volumes,
)

BATCH = 500
declare("purge.parts-gone")
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
    archived: datetime.timedelta
    receivers: frozenset[str] = frozenset()
    """Who is told of events: what they have still to be told is kept twice as long."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of `table` that may go when `over`; rows of `parts` (by these columns) go with them."""

    table: Table
    over: ColumnElement[bool]
    parts: tuple[Column[str], ...] = ()

    @property
    def key(self) -> Column[str]:
        """What names a row: the last column of the primary key."""
        return list(self.table.primary_key.columns)[-1]


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
        if rule.table is events:
            dropping(conn, kept.receivers, sure)
        fault_point("purge.parts-gone")
        counts[name] = conn.execute(delete(rule.table).where(rule.key.in_(sure))).rowcount
    return counts


def going(conn: Connection, kept: Kept) -> dict[str, int]:
    """How many rows of each table would have gone when all that is due was dropped; a table with none is left out."""
    rules = _rules(kept)
    alone = _deleted(utcnow() - kept.deleted)
    for name, used in _references(alone).items():
        rules[name] = replace(alone[name], over=and_(alone[name].over, ~used))
    found = {
        name: conn.execute(select(func.count()).select_from(rule.table).where(rule.over)).scalar_one()
        for name, rule in rules.items()
    }
    return {name: count for name, count in found.items() if count}


def gone_for_good(before: datetime.datetime) -> dict[str, Rule]:
    """What was deleted before then, and nothing refers to any more; children first."""
    found = _deleted(before)
    for name, used in _references().items():
        found[name] = replace(found[name], over=and_(found[name].over, ~used))
    return found


def referenced(before: datetime.datetime) -> dict[str, Rule]:
    """What was deleted before then, and something still refers to."""
    found = _deleted(before)
    return {name: replace(found[name], over=and_(found[name].over, used)) for name, used in _references().items()}


def _deleted(before: datetime.datetime) -> dict[str, Rule]:
    def rule(table: Table, *parts: Column[str]) -> Rule:
        return Rule(table, and_(table.c.deleted, table.c.deleted_at < before), parts)

    return {
        "attachments": rule(attachments),
        "transfers": rule(transfers),
        "snapshots": rule(snapshots, snapshot_metadata.c.snapshot_id),
        "volumes": rule(
            volumes, volume_metadata.c.volume_id, volume_admin_metadata.c.volume_id,
            volume_image_metadata.c.volume_id, generations.c.volume_id,
        ),
        "images": rule(images, image_properties.c.image_id),
        "volume types": rule(
            volume_types, type_extra_specs.c.volume_type_id, type_encryption.c.volume_type_id,
            type_access.c.volume_type_id, type_metadata.c.volume_type_id,
        ),
    }  # fmt: skip


def _references(going: Mapping[str, Rule] | None = None) -> dict[str, ColumnElement[bool]]:
    """Which rows must stay, since rows of other tables name them; of those, rows that are `going` keep nothing."""

    def stays(name: str) -> tuple[ColumnElement[bool], ...]:
        return () if going is None else (not_(going[name].over),)

    held = or_(
        exists().where(attachments.c.volume_id == volumes.c.id, *stays("attachments")),
        exists().where(snapshots.c.volume_id == volumes.c.id, *stays("snapshots")),
        exists().where(transfers.c.volume_id == volumes.c.id, *stays("transfers")),
    )
    in_use = (or_(not_(going["volumes"].over), held),) if going is not None else ()
    return {
        "volumes": held,
        "volume types": or_(
            exists().where(volumes.c.volume_type_id == volume_types.c.id, *in_use),
            exists().where(default_types.c.volume_type_id == volume_types.c.id),
        ),
    }


def _rules(kept: Kept) -> dict[str, Rule]:
    now = utcnow()
    over = operations.c.state.in_(_ENDED) & (operations.c.finished_at < now - kept.operations)
    return {
        "operations": Rule(operations, over),
        "events": Rule(events, _heard(now, kept)),
        "messages": Rule(messages, messages.c.guaranteed_until < now),
        "issues": Rule(issues, issues.c.closed_at < now - kept.issues),
        "revoked tokens": Rule(identity_revoked, identity_revoked.c.expires < _epoch(now)),
        "join tokens": Rule(join_tokens, join_tokens.c.expires_at < now - _TOKENS_KEPT),
        "certificates": Rule(certificates, _succeeded(now)),
        **gone_for_good(now - kept.deleted),
        "archived rows": Rule(archive, archive.c.deleted_at < now - kept.archived),
    }


def _heard(now: datetime.datetime, kept: Kept) -> ColumnElement[bool]:
    """Old events that all receivers were told of, and those that are too old to be kept for one that is away."""
    old = events.c.at < now - kept.events
    if not kept.receivers:
        return old
    mine = event_consumers.c.name.in_(kept.receivers)
    waits = exists().where(mine, or_(events.c.position.is_(None), event_consumers.c.position < events.c.position))
    return old & (~waits | (events.c.at < now - 2 * kept.events))


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
