"""extend_volume: claim the difference, grow on the host, then the row says the new size."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Invalid
from agent.wire.jobs import AttachmentResize, VolumeExtend
from coordinator.keys.store import KeyStore
from coordinator.operations import sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.volume_calls import volume_row, volume_secret
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, Workflow
from coordinator.quota import limits
from coordinator.scheduler.claims import claim, release
from coordinator.scheduler.errors import NoPool
from coordinator.state import attachments, messages, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if


def accept_extend(
    conn: Connection, requester: Requester, volume_id: str, new_size: int, *, attached: bool
) -> Operation:
    """`new_size` in GiB; `attached` allows a volume in use (microversion 3.42)."""
    row = volumes.get(conn, volume_id, requester.project_id)
    if new_size <= row.size:
        raise Invalid(
            reason=f"Invalid input received: New size for extend must be greater than current size. "
            f"(current: {row.size}, extended: {new_size})."
        )
    more = new_size - row.size
    type_name = types.get(conn, row.volume_type_id).name if row.volume_type_id else None
    limits.check(conn, row.project_id, type_name, gigabytes=more, volume_size=new_size)
    move(conn, "volume", volume_id, "extend_attached" if attached else "extend", reserved_size=more)
    args = {"new_size": new_size, "old_size": row.size}
    return accept(
        conn, requester, kind="extend_volume", version=2, resource_type="volume", resource_id=volume_id, args=args
    )


def workflow(keys: KeyStore) -> Workflow:
    """Version 2 of the workflow: a host that has the volume attached from elsewhere follows."""

    def follow(conn: Connection, operation: Operation) -> JobCall | None:
        return _follow(conn, keys, operation)

    return Workflow(
        kind="extend_volume",
        version=2,
        steps=(
            LocalStep("claim", _claim, undo=_unclaim),
            JobStep("grow", _grow),
            JobStep("follow", follow, gone_is_done=True),
        ),
        finished=_finished,
        failed=_failed,
        attention=_attention,
    )


def workflow_v1() -> Workflow:
    """Version 1 of the workflow."""
    return Workflow(
        kind="extend_volume",
        version=1,
        steps=(LocalStep("claim", _claim, undo=_unclaim), JobStep("grow", _grow)),
        finished=_finished,
        failed=_failed,
        attention=_attention,
    )


def _more(operation: Operation) -> int:
    return sizes.usable_bytes(operation.args["new_size"] - operation.args["old_size"])


def _claim(conn: Connection, operation: Operation) -> dict[str, Any]:
    row = volume_row(conn, operation)
    more = _more(operation)
    if row.pool_id is not None and not claim(conn, row.pool_id, more):
        raise NoPool(reasons=f"{row.pool_id} has no room for {more >> 30} GiB more")
    # A poll in the meantime sums up the rows anew: what is claimed must be in the row from now on.
    volumes.set_values(conn, row.id, device_bytes=_held(row) + more)
    return {"claimed": more}


def _unclaim(conn: Connection, operation: Operation) -> None:
    row, more = volume_row(conn, operation), _more(operation)
    release(conn, row.pool_id, more)
    volumes.set_values(conn, row.id, device_bytes=_held(row) - more)


def _held(row: Row[Any]) -> int:
    return int(row.device_bytes if row.device_bytes is not None else sizes.usable_bytes(row.size))


def _grow(conn: Connection, operation: Operation) -> JobCall | None:
    row = volume_row(conn, operation)
    args = VolumeExtend(
        backend=row.backend,
        volume_id=row.id,
        size_bytes=sizes.usable_bytes(operation.args["new_size"]),
        encrypted=row.encryption_format is not None,
    )
    return JobCall(row.host_id, args)


def _follow(conn: Connection, keys: KeyStore, operation: Operation) -> JobCall | None:
    row = volume_row(conn, operation)
    there = [one for one in attachments.of_volume(conn, row.id) if one.owner == "agent" and one.transport is not None]
    if not there:
        return None
    encrypted = row.encryption_format is not None
    size = int(operation.results["grow"]["device_bytes"])
    job = AttachmentResize(volume_id=row.id, size_bytes=size, encrypted=encrypted)
    return JobCall(there[0].host_id, job, volume_secret(conn, keys, row) if encrypted else {})


def _finished(conn: Connection, operation: Operation) -> None:
    grown, row = operation.results["grow"], volume_row(conn, operation)
    release(conn, row.pool_id, _held(row) - int(grown["device_bytes"]))
    move(
        conn,
        "volume",
        operation.resource_id,
        "extended",
        size=operation.args["new_size"],
        reserved_size=0,
        device_bytes=grown["device_bytes"],
        usable_bytes=grown["usable_bytes"],
    )


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    event = "extend_refused" if isinstance(error, NoPool) else "extend_failed"
    move_if(conn, "volume", operation.resource_id, event, reserved_size=0)
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, "extend_failed", reserved_size=0, attention=reason)
