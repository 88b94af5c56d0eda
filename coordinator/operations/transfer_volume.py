"""Handing a volume to another project: offer it, take it up with its key, or take the offer back.

No host has anything to do for it, so each is one piece of the caller's write transaction.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import Invalid, NotFound
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester
from coordinator.quota import limits
from coordinator.state import events, snapshots, transfers, volume_lists, volumes
from coordinator.state.errors import TransitionRefused
from coordinator.state.transition import move

_KEY_BYTES = 16


class WrongKey(Invalid):
    code = "transfer.wrong-key"
    sentence = "Invalid auth key: Attempt to transfer {id} with invalid auth key."
    hint = "The giver has the key: it was shown once, when the transfer was made."


class EncryptedNotYet(Invalid):
    code = "transfer.encrypted"
    sentence = "Invalid volume: transferring encrypted volume is not supported before microversion 3.70."


class SnapshotsStay(Invalid):
    code = "transfer.encrypted-snapshots"
    sentence = "Invalid volume: an encrypted volume can not be transferred without its snapshots: they share its key."


class SnapshotBusy(Invalid):
    code = "transfer.snapshot-busy"
    sentence = "Invalid snapshot: snapshot {id} of the volume is {status}; it must be available."
    hint = "Wait until the running work has ended, or delete the snapshot."


class InGroup(Invalid):
    code = "transfer.in-group"
    sentence = "Invalid volume: volume {id} is in a group and can not be transferred."
    hint = "Take it out of group {group} first."


@dataclass(frozen=True, slots=True)
class Taker:
    """Who takes an offer up."""

    project_id: str
    user_id: str


def offer(
    conn: Connection, volume: Row[Any], name: str | None, *, no_snapshots: bool, encrypted: bool
) -> tuple[Row[Any], str]:
    """The open offer and its key, which is kept nowhere. `encrypted`: whether the caller's version knows of those.

    Raises TransitionRefused when the volume is not available, and Invalid for what can not be handed on.
    """
    if volume.group_id is not None:
        raise InGroup(id=volume.id, group=volume.group_id)
    if volume.encryption_key_id is not None:
        if not encrypted:
            raise EncryptedNotYet
        if no_snapshots:
            raise SnapshotsStay
    if not no_snapshots:
        _checked(_going(conn, volume))
    key, salt = secrets.token_hex(_KEY_BYTES), secrets.token_hex(16)
    move(conn, "volume", volume.id, "transfer_offer", guards=(volumes.has_no_attachments(volume.id),))
    row = transfers.add(
        conn,
        volume_id=volume.id,
        name=name,
        salt=salt,
        key_hash=_hashed(salt, key),
        no_snapshots=no_snapshots,
        source_project_id=volume.project_id,
    )
    return row, key


def _going(conn: Connection, volume: Row[Any]) -> list[Row[Any]]:
    """The snapshots that are the giver's to give: others stayed with who had the volume before him."""
    return [row for row in snapshots.of_volume(conn, volume.id) if row.project_id == volume.project_id]


def _checked(found: Sequence[Row[Any]]) -> None:
    for row in found:
        if row.status != "available":
            raise SnapshotBusy(id=row.id, status=row.status)


def withdraw(conn: Connection, transfer: Row[Any]) -> None:
    """Take the offer back; the volume is available again."""
    if not transfers.close(conn, transfer.id, None):
        raise NotFound(noun="Transfer", id=transfer.id)
    move(conn, "volume", transfer.volume_id, "transfer_withdrawn")


def end_offer(conn: Connection, requester: Requester, volume_id: str) -> None:
    """Where the volume is on offer it no longer is, and that is told; else nothing."""
    if transfers.withdraw(conn, volume_id):
        about = requester.change("volume", volume_id)
        events.record(conn, about, "transfer_delete.start", {})
        move(conn, "volume", volume_id, "transfer_withdrawn")
        events.record(conn, about, "transfer_delete.end", {})


def take(conn: Connection, transfer: Row[Any], key: str, taker: Taker, keys: KeyStore) -> Row[Any]:
    """The volume, and its snapshots unless they stay, belong to the taker. Raises WrongKey, OverQuota; then nothing
    has changed."""
    if not hmac.compare_digest(_hashed(transfer.salt, key), transfer.key_hash):
        raise WrongKey(id=transfer.id)
    volume = volumes.get(conn, transfer.volume_id)
    going = [] if transfer.no_snapshots else _going(conn, volume)
    _checked(going)
    _afford(conn, volume, going, taker.project_id)
    if not transfers.close(conn, transfer.id, taker.project_id):
        raise NotFound(noun="Transfer", id=transfer.id)
    try:
        move(conn, "volume", volume.id, "transfer_taken")
    except TransitionRefused as error:
        raise Invalid(reason=f"Invalid volume: {error}") from None
    volumes.set_values(conn, volume.id, **_handed_over(conn, volume, taker, keys))
    for row in going:
        snapshots.set_values(conn, row.id, **_handed_over(conn, row, taker, keys))
    _forget_keys(conn, [volume, *going], keys)
    return volumes.get(conn, volume.id)


def _afford(conn: Connection, volume: Row[Any], going: Sequence[Row[Any]], project_id: str) -> None:
    name = volume_lists.type_names(conn, {volume.volume_type_id}).get(volume.volume_type_id)
    counted = [row for row in going if row.use_quota]
    limits.check(
        conn, project_id, name, volumes=int(volume.use_quota), gigabytes=volume.size if volume.use_quota else 0,
        snapshots=len(counted), snapshot_gigabytes=sum(row.volume_size for row in counted), volume_size=volume.size,
    )  # fmt: skip


def _handed_over(conn: Connection, row: Row[Any], taker: Taker, keys: KeyStore) -> dict[str, Any]:
    """What a row gets; the secret goes along as a copy of the taker's own."""
    values: dict[str, Any] = {"project_id": taker.project_id, "user_id": taker.user_id}
    if row.encryption_key_id is not None:
        copy = keys.clone(conn, row.encryption_key_id, project_id=taker.project_id, user_id=taker.user_id)
        values["encryption_key_id"] = copy
    return values


def _forget_keys(conn: Connection, rows: Sequence[Row[Any]], keys: KeyStore) -> None:
    """None is left with the giver, unless something of his uses it."""
    for old in {row.encryption_key_id for row in rows if row.encryption_key_id is not None}:
        if keys.user_of(conn, old) is None:
            keys.delete(conn, old)


def _hashed(salt: str, key: str) -> str:
    return hashlib.sha256(f"{salt}:{key}".encode()).hexdigest()
