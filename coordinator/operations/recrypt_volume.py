"""recrypt_volume: a volume gets another encryption, or none, together with the type that asks for it.

Its host makes a second copy beside the volume and puts that in its place; until then the volume is as it was. Each
copy has a key of its own, and the one whose copy goes away goes with it. The volume has its new type from the start,
so that quota counts it and nobody deletes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.wire.jobs import LuksFormat, VolumeRecrypt
from coordinator.keys.store import KeyStore
from coordinator.operations import fitting, sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.encryption import PLAIN
from coordinator.operations.volume_calls import SWITCH_UNCLEAR, key_secret, volume_row
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, Result, Workflow
from coordinator.scheduler.claims import release
from coordinator.scheduler.placement import Scheduler
from coordinator.state import enrolment, messages, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of


@dataclass(frozen=True, slots=True)
class NewType:
    """What the volume is to become; `columns` is the encryption of the type, None for a plain one."""

    id: str | None
    columns: dict[str, Any] | None


def accept_recrypt(conn: Connection, requester: Requester, keys: KeyStore, row: Row[Any], wanted: NewType) -> Operation:
    """Raises TransitionRefused (400)."""
    guards = (
        volumes.has_no_attachments(row.id),
        volumes.has_no_snapshots(row.id),
        volumes.is_no_source(volume_id=row.id),
    )
    move(conn, "volume", row.id, "recrypt", guards=guards, volume_type_id=wanted.id)
    key_id = None
    if wanted.columns is not None:
        key_id = keys.generate(conn, project_id=row.project_id, user_id=requester.user_id)
    args = {
        "type_id": wanted.id,
        "old_type_id": row.volume_type_id,
        "columns": wanted.columns or PLAIN,
        "key_id": key_id,
        "old_key_id": row.encryption_key_id,
    }
    return accept(conn, requester, kind="recrypt_volume", resource_type="volume", resource_id=row.id, args=args)


def workflow(keys: KeyStore, scheduler: Scheduler) -> Workflow:
    """Version 1 of the workflow."""

    def claim(conn: Connection, operation: Operation) -> Result:
        return _claim(conn, scheduler, operation)

    def make(conn: Connection, operation: Operation) -> JobCall:
        return _make(conn, keys, operation)

    def finished(conn: Connection, operation: Operation) -> None:
        _finished(conn, keys, operation)

    def failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
        _failed(conn, keys, operation, error)

    return Workflow(
        kind="recrypt_volume",
        version=1,
        steps=(LocalStep("claim", claim, undo=_unclaim), JobStep("make", make, final=True, unclear=SWITCH_UNCLEAR)),
        finished=finished,
        failed=failed,
        attention=_attention,
    )


def _usable(row: Row[Any]) -> int:
    return int(row.usable_bytes or sizes.usable_bytes(row.size))


def _claim(conn: Connection, scheduler: Scheduler, operation: Operation) -> Result:
    """Both copies are there for a while. A poll meanwhile sums up the rows: what is claimed must be in the row."""
    row = volume_row(conn, operation)
    more = sizes.claimed_bytes(row.size, operation.args["columns"]["encryption_format"])
    if row.pool_id is not None:
        scheduler.claim_there(conn, fitting.about(conn, row, "retype_volume", more, type_id=row.volume_type_id))
    held = int(row.device_bytes if row.device_bytes is not None else _usable(row))
    volumes.set_values(conn, row.id, device_bytes=held + more)
    return {"claimed": more, "held": held}


def _unclaim(conn: Connection, operation: Operation) -> None:
    row, claimed = volume_row(conn, operation), operation.steps["claim"]["result"]
    release(conn, row.pool_id, claimed["claimed"])
    volumes.set_values(conn, row.id, device_bytes=claimed["held"])


def _make(conn: Connection, keys: KeyStore, operation: Operation) -> JobCall:
    row, args = volume_row(conn, operation), operation.args
    wanted = {"source": args["old_key_id"], "volume": args["key_id"]}
    columns = args["columns"]
    fmt = None
    if columns["encryption_format"] is not None:
        names = {"format": "encryption_format", "cipher": "encryption_cipher", "key_size": "encryption_key_size"}
        fmt = LuksFormat.model_validate({name: columns[column] for name, column in names.items()})
    job = VolumeRecrypt(
        backend=backend_of(row),
        volume_id=row.id,
        size_bytes=_usable(row),
        encrypted=args["old_key_id"] is not None,
        encryption=fmt,
    )
    secrets = {name: key_secret(conn, keys, key_id) for name, key_id in wanted.items() if key_id is not None}
    return JobCall(row.host_id, job, secrets)


def _finished(conn: Connection, keys: KeyStore, operation: Operation) -> None:
    row, args, made = volume_row(conn, operation), operation.args, operation.results["make"]
    release(conn, row.pool_id, int(row.device_bytes or 0) - int(made["device_bytes"]))
    move(
        conn,
        "volume",
        row.id,
        "recrypted",
        attention=None,
        device_bytes=made["device_bytes"],
        usable_bytes=made["usable_bytes"],
        encryption_key_id=args["key_id"],
        **args["columns"],
    )
    if args["old_key_id"] is not None:
        keys.delete(conn, args["old_key_id"])


def _failed(conn: Connection, keys: KeyStore, operation: Operation, error: BrickyardError) -> None:
    """The host has said that the volume is as it was; one that was evicted has said nothing, so both keys stay."""
    args, row = operation.args, volume_row(conn, operation)
    if enrolment.host(conn, row.host_id) is None:
        _attention(conn, operation, str(error))
        return
    if args["key_id"] is not None:
        keys.delete(conn, args["key_id"])
    move_if(conn, "volume", operation.resource_id, "recrypted", volume_type_id=_former_type(conn, operation))
    messages.record(conn, operation, error)


def _former_type(conn: Connection, operation: Operation) -> str | None:
    """Its type before; none when that was deleted in the meantime."""
    former: str | None = operation.args["old_type_id"]
    return former if former is not None and types.is_live(conn, former) else None


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    """Nobody knows which content is in place, so both keys stay."""
    move_if(conn, "volume", operation.resource_id, "recrypt_unclear", attention=reason)
