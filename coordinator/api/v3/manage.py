"""Managing what lies on back ends already: the calls, under their present and their older paths."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection

from coordinator.api.acting import owned_volume, requester
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Boolean, Metadata, Name, Since, Text, Uuid
from coordinator.api.route import Resource, Route, get, post
from coordinator.api.v3 import manageable, snapshots
from coordinator.api.v3.snapshots import SnapshotAnswer
from coordinator.api.v3.volume_view import VolumeAnswer, as_changed
from coordinator.api.v3.volumes import shown
from coordinator.keys.store import KeyStore
from coordinator.operations import manage_snapshot, manage_volume
from coordinator.operations.engine import Engine
from coordinator.operations.retype_volume import Means
from coordinator.scheduler.placement import Scheduler
from coordinator.state import fleet, metadata
from coordinator.state.operations import Operation
from coordinator.state.volumes import backend_of

_SINCE = 8
_MANAGE = "volume_extension:volume_manage"
_MANAGE_SNAPSHOT = "snapshot_extension:snapshot_manage"
_LIST = "volume_extension:list_manageable"
_LIST_SNAPSHOTS = "snapshot_extension:list_manageable"


class ManageVolume(Body):
    """`ref` is `{"source-name": NAME}` as the list of manageable volumes tells it.

    For an encrypted one it also holds `encryption-key-id`: the id of a secret of the project's that opens it.
    `bootable` may be null: that is what clients send who were told nothing of it.
    """

    host: Name | None = None
    cluster: Annotated[Name | None, Since(16)] = None
    ref: dict[str, Any] | str
    name: Name | None = None
    description: Text | None = None
    volume_type: Name | None = None
    availability_zone: Name | None = None
    bootable: Boolean | None = None
    metadata: Metadata | None = None


class ManageSnapshot(Body):
    volume_id: Uuid
    ref: dict[str, Any] | str
    name: Name | None = None
    description: Text | None = None
    metadata: Metadata | None = None


class Manageable(Answer):
    """`reference` is what manages it; the detailed list says why it is not safe to, and which volume it is."""

    reference: dict[str, str]
    size: int
    safe_to_manage: bool
    source_reference: dict[str, str] = Field(default_factory=dict)
    reason_not_safe: str | None = None
    cinder_id: str | None = None
    extra_info: str | None = None


class ManageableVolumes(Answer):
    volumes: list[Manageable] = Field(alias="manageable-volumes")


class ManageableSnapshots(Answer):
    snapshots: list[Manageable] = Field(alias="manageable-snapshots")


async def volume(call: Call) -> dict[str, Any]:
    body = call.valid(ManageVolume)
    pool = await call.services.db.read(lambda conn: manageable.place_of(conn, body.host, body.cluster))
    found = await manageable.chosen(call, pool.host_id, fleet.address(pool), body.ref, "volume")
    wanted = manage_volume.ToManage(
        pool,
        found,
        call.services.settings.default_volume_type,
        body.name,
        body.description,
        body.volume_type,
        body.availability_zone,
        bool(body.bootable),
        manageable.key_of(body.ref),
        body.metadata or {},
    )
    means = Means(call.services.get(KeyStore), call.services.get(Scheduler))

    def accept(conn: Connection) -> tuple[Operation, dict[str, Any]]:
        operation, row = manage_volume.accept_manage(conn, requester(call), means, wanted)
        return operation, as_changed(call, shown(conn, row))

    _, view = await call.services.get(Engine).submit(accept)
    return view


async def snapshot(call: Call) -> dict[str, Any]:
    body = call.valid(ManageSnapshot)
    row = await call.services.db.read(lambda conn: owned_volume(conn, call, body.volume_id, _MANAGE_SNAPSHOT))
    if row.host_id is None:
        raise BadRequest(reason=f"Invalid volume: volume {row.id} lies on no host yet.")
    found = await manageable.chosen(call, row.host_id, backend_of(row), body.ref, "snapshot")
    wanted = manage_snapshot.ToManage(row, found, body.name, body.description, body.metadata or {})
    scheduler = call.services.get(Scheduler)

    def accept(conn: Connection) -> tuple[Operation, dict[str, Any]]:
        who = requester(call, row.project_id)
        operation, made = manage_snapshot.accept_manage(conn, who, scheduler, wanted)
        return operation, snapshots.view(call, made, metadata.read(conn, "snapshot", made.id), extended=False)

    _, view = await call.services.get(Engine).submit(accept)
    return view


async def volumes_listed(call: Call) -> dict[str, Any]:
    return {"manageable-volumes": await manageable.listing(call, "volume", with_details=False)}


async def volumes_in_detail(call: Call) -> dict[str, Any]:
    return {"manageable-volumes": await manageable.listing(call, "volume", with_details=True)}


async def snapshots_listed(call: Call) -> dict[str, Any]:
    return {"manageable-snapshots": await manageable.listing(call, "snapshot", with_details=False)}


async def snapshots_in_detail(call: Call) -> dict[str, Any]:
    return {"manageable-snapshots": await manageable.listing(call, "snapshot", with_details=True)}


def _routes(volumes_path: str, snapshots_path: str, since: int) -> tuple[Route, ...]:
    query: dict[str, Any] = {"query": manageable.QUERY, "query_since": (("cluster", manageable.CLUSTER_SINCE),)}
    return (
        get(volumes_path, volumes_listed, _LIST, "What a pool holds, and whether it can be managed.",
            answer=ManageableVolumes, since=since, **query),
        get(f"{volumes_path}/detail", volumes_in_detail, _LIST, "The same, with the reasons.",
            answer=ManageableVolumes, since=since, **query),
        post(volumes_path, volume, _MANAGE, "Manage a volume that lies on a pool already.", body=ManageVolume,
             body_key="volume", answer=VolumeAnswer, answer_key="volume", status=202, since=since),
        get(snapshots_path, snapshots_listed, _LIST_SNAPSHOTS, "What snapshots a pool holds.",
            answer=ManageableSnapshots, since=since, **query),
        get(f"{snapshots_path}/detail", snapshots_in_detail, _LIST_SNAPSHOTS, "The same, with the reasons.",
            answer=ManageableSnapshots, since=since, **query),
        post(snapshots_path, snapshot, _MANAGE_SNAPSHOT, "Manage a snapshot that lies beside its volume already.",
             body=ManageSnapshot, body_key="snapshot", answer=SnapshotAnswer, answer_key="snapshot", status=202,
             since=since),
    )  # fmt: skip


def resource() -> Resource:
    """The routes."""
    older = _routes("/os-volume-manage", "/os-snapshot-manage", 0)
    return Resource(
        "manage",
        "Managing what lies on back ends already.",
        (*_routes("/manageable_volumes", "/manageable_snapshots", _SINCE), *older),
    )
