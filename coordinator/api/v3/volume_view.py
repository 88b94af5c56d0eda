"""A volume as an answer, at every microversion."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from pydantic import Field
from sqlalchemy import Row

from coordinator.api.call import Call
from coordinator.api.fields import Answer, OpenAnswer, Since, Time
from coordinator.state.volume_lists import Detail


class Link(Answer):
    rel: str
    href: str


class VolumeAttachment(Answer):
    """One attachment in the details of a volume; `id` is the volume's, for clients of old."""

    id: str
    attachment_id: str
    volume_id: str
    server_id: str | None
    host_name: str | None
    device: str | None
    attached_at: Time | None


class VolumeSummary(Answer):
    id: str
    name: str | None
    links: list[Link]


class VolumeAnswer(OpenAnswer):
    """Keys with a colon (`os-vol-host-attr:host`, …) come with it where policy shows them."""

    id: str
    name: str | None
    description: str | None
    status: str
    size: int
    availability_zone: str | None
    created_at: Time
    updated_at: Time | None
    volume_type: str | None
    snapshot_id: str | None
    source_volid: str | None
    metadata: dict[str, str]
    attachments: list[VolumeAttachment]
    links: list[Link]
    user_id: str
    bootable: str
    encrypted: bool
    replication_status: str | None
    consistencygroup_id: str | None
    multiattach: bool
    migration_status: str | None = None
    volume_image_metadata: dict[str, str] = Field(default_factory=dict)
    group_id: Annotated[str | None, Since(13)] = None
    provider_id: Annotated[str | None, Since(21)] = None
    shared_targets: Annotated[bool | None, Since(48)] = None
    service_uuid: Annotated[str | None, Since(48)] = None
    cluster_name: Annotated[str | None, Since(61)] = None
    volume_type_id: Annotated[str | None, Since(63)] = None
    encryption_key_id: Annotated[str | None, Since(64)] = None
    consumes_quota: Annotated[bool, Since(65)] = True


def summarized(call: Call, row: Row[Any]) -> dict[str, Any]:
    """Id, name and links."""
    return {"id": row.id, "name": row.name, "links": links(call, row.id)}


def detailed(call: Call, detail: Detail) -> dict[str, Any]:
    """All that the caller may see."""
    row, admin = detail.row, call.context.is_admin
    view: dict[str, Any] = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "status": row.status,
        "size": row.size,
        "availability_zone": row.availability_zone,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "volume_type": detail.type_name,
        "volume_type_id": row.volume_type_id,
        "snapshot_id": row.snapshot_id,
        "source_volid": row.source_volid,
        "metadata": dict(detail.metadata),
        "attachments": [_attached(item, admin) for item in detail.attachments if item.attach_status == "attached"],
        "links": links(call, row.id),
        "user_id": row.user_id,
        "bootable": "true" if row.bootable else "false",
        "encrypted": row.encryption_key_id is not None,
        "replication_status": None,
        "consistencygroup_id": None,
        "multiattach": row.multiattach,
        "group_id": row.group_id,
        "shared_targets": _shares_targets(call, row),
        "service_uuid": service_uuid(row.host_id, row.backend),
        "consumes_quota": row.use_quota,
    }
    if row.encryption_key_id is not None:
        view["encryption_key_id"] = row.encryption_key_id
    if detail.image_metadata:
        view["volume_image_metadata"] = dict(detail.image_metadata)
    owner = {"project_id": row.project_id, "user_id": row.user_id}
    if call.may("volume_extension:volume_tenant_attribute", owner):
        view["os-vol-tenant-attr:tenant_id"] = row.project_id
    if call.may("volume_extension:volume_host_attribute", owner):
        view["os-vol-host-attr:host"] = row.pool_id
    if call.may("volume_extension:volume_mig_status_attribute", owner):
        view["os-vol-mig-status-attr:migstat"] = row.migration_status
        view["os-vol-mig-status-attr:name_id"] = None
    if admin:
        view |= {"migration_status": row.migration_status, "provider_id": None, "cluster_name": None}
    return view


def links(call: Call, volume_id: str) -> list[dict[str, str]]:
    bare = call.link(f"volumes/{volume_id}")
    return [{"rel": "self", "href": bare}, {"rel": "bookmark", "href": bare.replace("/v3/", "/", 1)}]


def service_uuid(host_id: str | None, backend: str | None) -> str | None:
    """A stable id for the back end that a volume lies on."""
    return str(uuid5(NAMESPACE_URL, f"brickyard:{host_id}@{backend}")) if host_id and backend else None


def _shares_targets(call: Call, row: Row[Any]) -> bool | None:
    """No target is shared between volumes; a volume that lies nowhere yet is told to be locked."""
    if row.host_id is not None:
        return False
    return None if call.version >= 69 else True


def _attached(row: Row[Any], admin: bool) -> dict[str, Any]:
    return {
        "id": row.volume_id,
        "attachment_id": row.id,
        "volume_id": row.volume_id,
        "server_id": row.instance_id,
        "host_name": row.attached_host if admin else None,
        "device": row.mountpoint,
        "attached_at": row.attach_time,
    }
