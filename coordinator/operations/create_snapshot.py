"""create_snapshot: on the volume's own host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.base.ids import new_id
from agent.wire.jobs import SnapshotCreate, SnapshotDelete
from coordinator.keys.store import KeyStore
from coordinator.operations import fitting, sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.quota import limits
from coordinator.scheduler.errors import NoPool
from coordinator.scheduler.placement import Scheduler
from coordinator.state import messages, snapshots, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import enter, move, move_if
from coordinator.state.volumes import backend_of


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    volume_id: str
    name: str | None = None
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    force: bool = False


def accept_snapshot(
    conn: Connection, requester: Requester, keys: KeyStore, wanted: NewSnapshot
) -> tuple[Operation, Row[Any]]:
    """The volume must be available, or in use with `force`."""
    row = volumes.get(conn, wanted.volume_id, requester.project_id)
    row = move(conn, "volume", row.id, "snapshot_attached" if wanted.force else "snapshot")
    type_name = types.get(conn, row.volume_type_id).name if row.volume_type_id else None
    limits.check(conn, row.project_id, type_name, snapshots=1, snapshot_gigabytes=row.size)
    snapshot_id = new_id()
    key_id = row.encryption_key_id
    if key_id is not None:
        key_id = keys.clone(conn, key_id, project_id=requester.project_id, user_id=requester.user_id)
    snapshot = enter(
        conn,
        "snapshot",
        "create",
        id=snapshot_id,
        project_id=row.project_id,
        user_id=requester.user_id,
        volume_id=row.id,
        volume_type_id=row.volume_type_id,
        name=wanted.name,
        description=wanted.description,
        volume_size=row.size,
        encryption_key_id=key_id,
        usable_bytes=row.usable_bytes,
    )
    snapshots.put_metadata(conn, snapshot_id, wanted.metadata)
    operation = accept(
        conn, requester, kind="create_snapshot", resource_type="snapshot", resource_id=snapshot_id, args={}
    )
    return operation, snapshot


def snapshot_call(conn: Connection, operation: Operation) -> tuple[Row[Any], Row[Any]]:
    """The snapshot and its volume."""
    snapshot = snapshots.get(conn, operation.resource_id)
    return snapshot, volumes.get(conn, snapshot.volume_id)


def remove_call(conn: Connection, operation: Operation) -> JobCall | None:
    """Remove the snapshot's data where its volume lies."""
    snapshot, volume = snapshot_call(conn, operation)
    if volume.host_id is None:
        return None
    return JobCall(volume.host_id, SnapshotDelete(backend=backend_of(volume), snapshot_id=snapshot.id))


def workflow(scheduler: Scheduler) -> Workflow:
    """Version 1 of the workflow."""

    def make(conn: Connection, operation: Operation) -> JobCall | None:
        return _make(conn, scheduler, operation)

    return Workflow(
        kind="create_snapshot",
        version=1,
        steps=(JobStep("make", make, undo=remove_call),),
        finished=_finished,
        failed=_failed,
        attention=_attention,
    )


def _make(conn: Connection, scheduler: Scheduler, operation: Operation) -> JobCall | None:
    snapshot, volume = snapshot_call(conn, operation)
    # Asked once: a job that was given out may have made it by now.
    if volume.pool_id is not None and "host" not in operation.steps.get("make", {}):
        _check_fits(conn, scheduler, volume)
    args = SnapshotCreate(backend=backend_of(volume), volume_id=volume.id, snapshot_id=snapshot.id)
    return JobCall(volume.host_id, args)


def _check_fits(conn: Connection, scheduler: Scheduler, volume: Row[Any]) -> None:
    """Raises NoPool. A snapshot may grow to its volume's size; nothing is claimed, as hosts tell what it takes."""
    size = volume.device_bytes or sizes.usable_bytes(volume.size)
    reason = scheduler.unfit(conn, fitting.about(conn, volume, "create_snapshot", size, type_id=volume.volume_type_id))
    if reason is not None:
        raise NoPool(reasons=f"{volume.pool_id} {reason}")


def _finished(conn: Connection, operation: Operation) -> None:
    made = operation.results["make"]
    move(conn, "snapshot", operation.resource_id, "created", device_bytes=made["device_bytes"])


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    move_if(conn, "snapshot", operation.resource_id, "create_failed", attention=str(error))
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "snapshot", operation.resource_id, "create_failed", attention=reason)
