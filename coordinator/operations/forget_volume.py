"""Forgetting a volume whose storage is gone for good: its rows end, nothing is asked of any host.

For a back end that was thrown away while its host lives on (a host that is dead is evicted instead). What is ended is
shown first; the operator's word that the data are gone is kept with the event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import Conflict
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester
from coordinator.operations.evict_host import Part
from coordinator.operations.reset_status import detach_command, holder
from coordinator.scheduler.claims import release
from coordinator.state import attachments, events, operations, snapshots, transfers, volumes
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import move


class WordsNeeded(Conflict):
    code = "volume.words-needed"
    sentence = "Nobody has said that the data of volume {id} are gone, and forgetting it can not be undone."
    hint = "See what it means with: brickyard volume forget {id} --dry-run. Then say why: --operator-says WORDS."


class StillHeld(Conflict):
    code = "volume.still-held"
    sentence = "Volume {id} can not be forgotten while it has attachments: {holders}."
    hint = "Remove them first: {remedy}. Where their holders are gone too: --force."


class AtWork(Conflict):
    code = "volume.at-work"
    sentence = "Operation {operation} ({kind}) works on volume {id}."
    hint = "Cancel it first: brickyard operation cancel {operation}."


class IsSource(Conflict):
    code = "volume.is-source"
    sentence = "Something is being made of volume {id} or of a snapshot of it."
    hint = "Wait until that has ended, or cancel it: brickyard operation list --active."


def look(conn: Connection, volume: Row[Any]) -> list[Part]:
    """What ends with the volume."""
    kept = [row.id for row in (volume, *snapshots.of_volume(conn, volume.id)) if row.encryption_key_id is not None]
    found = (
        Part("volumes", "its row ends, quota is freed; data that turn up again are an issue", (volume.id,)),
        Part("snapshots", "their rows end", tuple(row.id for row in snapshots.of_volume(conn, volume.id))),
        Part("attachments", "end without a word to who holds them",
             tuple(row.id for row in attachments.of_volume(conn, volume.id))),
        Part("encryption keys", "are deleted: the data can not be read again", tuple(kept)),
    )  # fmt: skip
    return [part for part in found if part.ids]


def forget(
    conn: Connection, requester: Requester, keys: KeyStore, volume: Row[Any], words: str | None, *, force: bool
) -> list[Part]:
    """End all rows; once more finds no volume. Raises WordsNeeded, AtWork, StillHeld, IsSource, TransitionRefused."""
    if words is None:
        raise WordsNeeded(id=volume.id)
    found, going = look(conn, volume), snapshots.of_volume(conn, volume.id)
    _free(conn, volume, going, force=force)
    guards = (volumes.is_no_source(volume_id=volume.id),)
    for row in going:
        move(conn, "snapshot", row.id, "forgotten", guards=(volumes.is_no_source(snapshot_id=row.id),))
    for row in attachments.of_volume(conn, volume.id):
        move(conn, "attachment", row.id, "gone", detach_time=utcnow())
    move(conn, "volume", volume.id, "forgotten", guards=guards, terminated_at=utcnow(), attach_status="detached")
    transfers.withdraw(conn, volume.id)
    release(conn, volume.pool_id, volume.device_bytes or 0)
    for row in (volume, *going):
        if row.encryption_key_id is not None:
            keys.delete(conn, row.encryption_key_id)
    events.record(conn, requester.change("volume", volume.id), "forget_volume.end", {"words": words})
    return found


def _free(conn: Connection, volume: Row[Any], going: Sequence[Row[Any]], *, force: bool) -> None:
    held = attachments.of_volume(conn, volume.id)
    for row in (volume, *going, *held):
        working = operations.active_of(conn, row.id)
        if working is not None:
            raise AtWork(id=volume.id, operation=working.id, kind=working.kind)
    if held and not force:
        raise StillHeld(
            id=volume.id, holders="; ".join(holder(row) for row in held),
            remedy=" and ".join(detach_command(row) for row in held),
        )  # fmt: skip
