"""manage_snapshot and unmanage_snapshot: adopt a snapshot that lies beside its volume already, and let one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Invalid
from agent.base.ids import new_id
from agent.wire.jobs import SnapshotAdopt, SnapshotRelease
from agent.wire.results import ForeignItem
from coordinator.operations import fitting, sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.create_snapshot import snapshot_call
from coordinator.operations.manage_volume import EncryptedUnmanaged, NotManageable
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.quota import limits
from coordinator.scheduler.placement import Scheduler
from coordinator.state import messages, snapshots, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import enter, move, move_if
from coordinator.state.volumes import backend_of


@dataclass(frozen=True, slots=True)
class ToManage:
    """What is to be adopted: `found` as the host of the volume listed it just now."""

    volume: Row[Any]
    found: ForeignItem
    name: str | None = None
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def accept_manage(
    conn: Connection, requester: Requester, scheduler: Scheduler, wanted: ToManage
) -> tuple[Operation, Row[Any]]:
    """Raises NotManageable, Invalid (400), TransitionRefused, OverQuota (413)."""
    volume, found = wanted.volume, wanted.found
    if found.reason:
        raise NotManageable(noun="snapshot", name=found.name, where=volume.pool_id, reason=found.reason)
    if volume.encryption_key_id is not None:
        raise Invalid(reason="Invalid input received: managing snapshots of encrypted volumes is not supported.")
    parent = found.source.removeprefix("volume-")
    if found.source and parent != volume.id and volumes.with_any_state(conn, parent) is not None:
        reason = f"it is a snapshot of volume {parent}"
        raise NotManageable(noun="snapshot", name=found.name, where=volume.pool_id, reason=reason)
    # Its space is taken already.
    asked = fitting.about(conn, volume, "manage_existing_snapshot", 0, type_id=volume.volume_type_id)
    unfit = scheduler.unfit(conn, asked)
    if unfit is not None:
        raise NotManageable(noun="snapshot", name=found.name, where=volume.pool_id, reason=f"its pool {unfit}")
    move(conn, "volume", volume.id, "snapshot_attached")
    size = sizes.gib_for(found.size_bytes)
    type_name = types.get(conn, volume.volume_type_id).name if volume.volume_type_id else None
    limits.check(conn, volume.project_id, type_name, snapshots=1, snapshot_gigabytes=size)
    row = enter(
        conn,
        "snapshot",
        "manage",
        id=new_id(),
        project_id=volume.project_id,
        user_id=requester.user_id,
        volume_id=volume.id,
        volume_type_id=volume.volume_type_id,
        name=wanted.name,
        description=wanted.description,
        volume_size=size,
        device_bytes=found.size_bytes,
        usable_bytes=found.size_bytes,
    )
    snapshots.put_metadata(conn, row.id, dict(wanted.metadata))
    args = {"source_name": found.name, "device_bytes": found.size_bytes}
    operation = accept(conn, requester, kind="manage_snapshot", resource_type="snapshot", resource_id=row.id, args=args)
    return operation, row


def manage_workflow() -> Workflow:
    """Version 1 of manage_snapshot."""
    return Workflow(
        kind="manage_snapshot",
        version=1,
        steps=(JobStep("adopt", _adopt, undo=_release),),
        finished=lambda conn, operation: _moved(conn, operation, "created", None),
        failed=lambda conn, operation, error: _failed(conn, operation, "create_failed", error),
        attention=lambda conn, operation, reason: _moved(conn, operation, "create_failed", reason),
    )


def _adopt(conn: Connection, operation: Operation) -> JobCall:
    snapshot, volume = snapshot_call(conn, operation)
    job = SnapshotAdopt(
        backend=backend_of(volume),
        volume_id=volume.id,
        snapshot_id=snapshot.id,
        source_name=operation.args["source_name"],
        device_bytes=operation.args["device_bytes"],
    )
    return JobCall(volume.host_id, job)


def accept_unmanage(conn: Connection, requester: Requester, snapshot_id: str) -> Operation:
    """Raises EncryptedUnmanaged, TransitionRefused (400)."""
    row = snapshots.get(conn, snapshot_id)
    if row.encryption_key_id is not None:
        raise EncryptedUnmanaged(noun="snapshot", id=snapshot_id)
    move(conn, "snapshot", snapshot_id, "unmanage", guards=(volumes.is_no_source(snapshot_id=snapshot_id),))
    return accept(conn, requester, kind="unmanage_snapshot", resource_type="snapshot", resource_id=snapshot_id, args={})


def unmanage_workflow() -> Workflow:
    """Version 1 of unmanage_snapshot."""
    return Workflow(
        kind="unmanage_snapshot",
        version=1,
        steps=(JobStep("release", _release),),
        finished=lambda conn, operation: _moved(conn, operation, "unmanaged", None),
        failed=lambda conn, operation, error: _failed(conn, operation, "unmanage_failed", error),
        attention=lambda conn, operation, reason: _moved(conn, operation, "unmanage_failed", reason),
    )


def _release(conn: Connection, operation: Operation) -> JobCall:
    snapshot, volume = snapshot_call(conn, operation)
    job = SnapshotRelease(backend=backend_of(volume), volume_id=volume.id, snapshot_id=snapshot.id)
    return JobCall(volume.host_id, job)


def _moved(conn: Connection, operation: Operation, event: str, reason: str | None) -> None:
    move_if(conn, "snapshot", operation.resource_id, event, attention=reason)


def _failed(conn: Connection, operation: Operation, event: str, error: BrickyardError) -> None:
    _moved(conn, operation, event, str(error))
    messages.record(conn, operation, error)
