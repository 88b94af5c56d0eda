"""Pieces that several volume workflows share: the volume's row, its encryption on the wire, its secret."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.wire.jobs import LuksFormat, VolumeDelete, WireSecret
from coordinator.keys.store import KeyStore
from coordinator.operations.workflow import JobCall
from coordinator.scheduler.claims import release
from coordinator.state import volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move_if
from coordinator.state.volumes import backend_of

SWITCH_UNCLEAR = frozenset({"volume.switch-unclear"})
"""Not even the host can say which of two contents a volume has."""

PLACE = ("host_id", "backend", "pool", "pool_id", "cluster_name", "availability_zone")
"""Where a volume lies: the columns that one in the same place has alike."""


def volume_row(conn: Connection, operation: Operation) -> Row[Any]:
    """The row of the operation's volume; it can not be missing while the operation runs."""
    row = volumes.with_any_state(conn, operation.resource_id)
    if row is None:
        raise BrickyardError(reason=f"the row of volume {operation.resource_id} is missing")
    return row


def luks_format(row: Row[Any]) -> LuksFormat | None:
    """The encryption of a volume as the agent wants it."""
    if row.encryption_format is None:
        return None
    return LuksFormat(format=row.encryption_format, cipher=row.encryption_cipher, key_size=row.encryption_key_size)


def volume_secret(conn: Connection, keys: KeyStore, row: Row[Any]) -> dict[str, WireSecret]:
    """The secret of an encrypted volume, named `volume`; nothing for a plain one."""
    if row.encryption_key_id is None:
        return {}
    secret = keys.get(conn, row.encryption_key_id)
    return {"volume": WireSecret.of(secret.type, secret.value)}


def key_secret(conn: Connection, keys: KeyStore, key_id: str) -> WireSecret:
    """One secret of the key store, as it travels."""
    secret = keys.get(conn, key_id)
    return WireSecret.of(secret.type, secret.value)


def unmake(conn: Connection, volume_id: str, pool_id: str, claimed: int) -> None:
    """Forget a volume that an operation made beside its own, when no data of it are left."""
    for event in ("create_failed", "delete", "deleted"):
        move_if(conn, "volume", volume_id, event)
    release(conn, pool_id, claimed)


def delete_call(conn: Connection, operation: Operation) -> JobCall | None:
    """Remove the volume's data where it was placed; nothing when it was placed nowhere."""
    row = volume_row(conn, operation)
    if row.host_id is None:
        return None
    return JobCall(row.host_id, VolumeDelete(backend=backend_of(row), volume_id=row.id))
