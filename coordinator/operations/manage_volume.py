"""manage_volume and unmanage_volume: adopt data that lie on a back end already, and let them go; nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Invalid, Permanent
from agent.base.ids import new_id
from agent.wire.jobs import VolumeAdopt, VolumeRelease
from agent.wire.results import ForeignItem
from coordinator.keys.store import KeyStore
from coordinator.operations import sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.delete_volume import VolumeHasSnapshots
from coordinator.operations.retype_volume import Means, is_multiattach
from coordinator.operations.volume_calls import volume_row, volume_secret
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.quota import limits
from coordinator.scheduler.claims import claim, release
from coordinator.scheduler.errors import NoPool
from coordinator.scheduler.request import Request
from coordinator.state import default_types, fleet, messages, snapshots, types, volumes
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import enter, move, move_if
from coordinator.state.volumes import backend_of

NOT_ADOPTABLE = "backend.not-adoptable"


class NotManageable(Permanent):
    code = "manage.refused"
    status = 400
    sentence = "Manage existing {noun} failed: {name} on {where} can not be managed: {reason}."
    hint = "See what can be: openstack block storage {noun} manageable list {where}."


class KeyNeeded(Permanent):
    code = "manage.key-needed"
    status = 400
    sentence = "Manage existing volume failed: {name} is to be of an encrypted type, and no key is named that opens it."
    hint = "Register it (brickyard key register), and name its id as encryption-key-id in the reference."


class EncryptedUnmanaged(Permanent):
    code = "manage.encrypted"
    status = 400
    sentence = "Unmanaging encrypted volumes is not supported: the key of {noun} {id} would be lost."
    hint = "Copy what is inside to a volume without encryption, and let go of that one."


@dataclass(frozen=True, slots=True)
class ToManage:
    """What is to be adopted: `found` as the host listed it just now, on the pool `pool`."""

    pool: Row[Any]
    found: ForeignItem
    default_type: str
    name: str | None = None
    description: str | None = None
    volume_type: str | None = None
    availability_zone: str | None = None
    bootable: bool = False
    key_id: str | None = None
    """A secret of the requester's project that opens it; the volume gets a copy of its own."""
    metadata: Mapping[str, str] = field(default_factory=dict)


def accept_manage(conn: Connection, requester: Requester, means: Means, wanted: ToManage) -> tuple[Operation, Row[Any]]:
    """Raises NotManageable, KeyNeeded, Invalid, NoPool (400), SecretNotFound (404), OverQuota (413)."""
    pool, found = wanted.pool, wanted.found
    if found.reason:
        raise NotManageable(noun="volume", name=found.name, where=pool.id, reason=found.reason)
    if wanted.volume_type:
        kind = types.find(conn, wanted.volume_type, requester.project_id)
    else:
        kind = default_types.needed(conn, requester.project_id, wanted.default_type)
    specs = types.extra_specs(conn, kind.id)
    encrypted = _encrypted(conn, kind, wanted, multiattach=is_multiattach(specs))
    size = sizes.gib_for(found.size_bytes)
    # Its space is taken already: it is promised whatever else is.
    asked = Request(0, pool_id=pool.id, extra_specs=specs, purpose="manage_existing", volume={"size": size})
    unfit = means.scheduler.unfit(conn, asked)
    if unfit is not None:
        raise NotManageable(noun="volume", name=found.name, where=pool.id, reason=f"its pool {unfit}")
    limits.check(conn, requester.project_id, kind.name, volumes=1, gigabytes=size, volume_size=size)
    if not claim(conn, pool.id, found.size_bytes, by=None):
        raise NoPool(reasons=f"{pool.id} is disabled, or its host does not tell of it")
    key_id = _own_key(conn, requester, means.keys, str(wanted.key_id)) if encrypted else None
    row = enter(
        conn,
        "volume",
        "manage",
        id=new_id(),
        project_id=requester.project_id,
        user_id=requester.user_id,
        name=wanted.name,
        description=wanted.description,
        size=size,
        availability_zone=wanted.availability_zone or fleet.get(conn, pool.host_id).availability_zone,
        volume_type_id=kind.id,
        bootable=wanted.bootable,
        multiattach=is_multiattach(specs),
        host_id=pool.host_id,
        backend=pool.backend,
        pool=pool.name,
        pool_id=pool.id,
        cluster_name=pool.cluster_name,
        device_bytes=found.size_bytes,
        encryption_key_id=key_id,
    )
    volumes.put_metadata(conn, row.id, dict(wanted.metadata))
    args = {"source_name": found.name, "device_bytes": found.size_bytes}
    operation = accept(conn, requester, kind="manage_volume", resource_type="volume", resource_id=row.id, args=args)
    return operation, row


def _encrypted(conn: Connection, kind: Row[Any], wanted: ToManage, *, multiattach: bool) -> bool:
    """Whether it is to be an encrypted volume. Type and key belong together."""
    of_type = types.encryption(conn, kind.id)
    if of_type is None and wanted.key_id is None:
        return False
    if wanted.key_id is None:
        raise KeyNeeded(name=wanted.found.name)
    if of_type is None:
        raise Invalid(
            reason="Invalid input received: a volume that is managed with its key needs a volume type with encryption."
        )
    if multiattach:
        raise Invalid(reason="Invalid input received: a volume can not be both encrypted and multiattach.")
    return True


def _own_key(conn: Connection, requester: Requester, keys: KeyStore, key_id: str) -> str:
    """A new secret with the value of one of the project's; it has no name, so that the other stays the one of its."""
    secret = keys.get(conn, key_id, project_id=requester.project_id)
    return keys.create(
        conn, project_id=requester.project_id, user_id=requester.user_id, type=secret.type, value=secret.value,
        algorithm=secret.algorithm, bit_length=secret.bit_length,
    )  # fmt: skip


def manage_workflow(keys: KeyStore) -> Workflow:
    """Version 1 of manage_volume."""

    def adopt(conn: Connection, operation: Operation) -> JobCall:
        return _adopt(conn, keys, operation)

    return Workflow(
        kind="manage_volume",
        version=1,
        steps=(JobStep("adopt", adopt, undo=_let_go),),
        finished=_adopted,
        failed=_not_adopted,
        attention=lambda conn, operation, reason: _ended(conn, operation, "manage_failed", reason),
    )


def _adopt(conn: Connection, keys: KeyStore, operation: Operation) -> JobCall:
    row, args = volume_row(conn, operation), operation.args
    job = VolumeAdopt(
        backend=backend_of(row),
        volume_id=row.id,
        source_name=args["source_name"],
        device_bytes=args["device_bytes"],
        encrypted=row.encryption_key_id is not None,
    )
    return JobCall(row.host_id, job, volume_secret(conn, keys, row))


def _let_go(conn: Connection, operation: Operation) -> JobCall | None:
    """What the host would not take in lies where it did."""
    refused = (operation.error or {}).get("code") == NOT_ADOPTABLE
    return None if refused else _release(conn, operation)


def _adopted(conn: Connection, operation: Operation) -> None:
    row, made = volume_row(conn, operation), operation.results["adopt"]
    values: dict[str, Any] = {"usable_bytes": made["usable_bytes"], "launched_at": utcnow()}
    if row.encryption_key_id is not None:
        said = made.get("encryption")
        if said is None:
            _ended(conn, operation, "manage_failed", "The agent of its host is too old to look into its header.")
            return
        values |= {
            "size": sizes.gib_for(made["usable_bytes"]),
            "encryption_format": said["format"],
            "encryption_cipher": said["cipher"],
            "encryption_key_size": said["key_size"],
        }
    move(conn, "volume", row.id, "created", **values)


def _not_adopted(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    row = volume_row(conn, operation)
    release(conn, row.pool_id, int(row.device_bytes or 0))
    volumes.set_values(conn, row.id, device_bytes=0)
    _ended(conn, operation, "manage_failed", str(error))
    messages.record(conn, operation, error)


def accept_unmanage(conn: Connection, requester: Requester, volume_id: str) -> Operation:
    """Raises EncryptedUnmanaged, VolumeHasSnapshots, TransitionRefused (400)."""
    row = volumes.get(conn, volume_id)
    if row.encryption_key_id is not None:
        raise EncryptedUnmanaged(noun="volume", id=volume_id)
    guards = (
        volumes.has_no_snapshots(volume_id),
        volumes.has_no_attachments(volume_id),
        volumes.is_no_source(volume_id=volume_id),
    )
    try:
        move(conn, "volume", volume_id, "unmanage", guards=guards)
    except TransitionRefused as refused:
        count = snapshots.count_of(conn, volume_id)
        if count:
            raise VolumeHasSnapshots(id=volume_id, count=count) from refused
        raise
    return accept(conn, requester, kind="unmanage_volume", resource_type="volume", resource_id=volume_id, args={})


def unmanage_workflow() -> Workflow:
    """Version 1 of unmanage_volume."""
    return Workflow(
        kind="unmanage_volume",
        version=1,
        steps=(JobStep("release", _release),),
        finished=_released,
        failed=_not_released,
        attention=lambda conn, operation, reason: _ended(conn, operation, "unmanage_failed", reason),
    )


def _release(conn: Connection, operation: Operation) -> JobCall | None:
    row = volume_row(conn, operation)
    if row.host_id is None:
        return None
    return JobCall(row.host_id, VolumeRelease(backend=backend_of(row), volume_id=row.id))


def _released(conn: Connection, operation: Operation) -> None:
    row = volume_row(conn, operation)
    release(conn, row.pool_id, row.device_bytes or 0)
    move_if(conn, "volume", row.id, "unmanaged", terminated_at=utcnow())


def _not_released(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    _ended(conn, operation, "unmanage_failed", str(error))
    messages.record(conn, operation, error)


def _ended(conn: Connection, operation: Operation, event: str, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, event, attention=reason)
