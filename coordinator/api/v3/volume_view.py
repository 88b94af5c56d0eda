"""A volume as an answer, at every microversion."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from pydantic import Field
from sqlalchemy import Row

from coordinator.api.call import Call
from coordinator.api.fields import Answer, OpenAnswer, Since, Time, stamp
from coordinator.state.keys import FIXED_KEY
from coordinator.state.volume_lists import Attached, Detail


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


_OF_SHOWS = ("os-vol-tenant-attr:", "os-vol-host-attr:", "os-vol-mig-status-attr:", "volume_image_metadata")


def detailed(call: Call, detail: Detail) -> dict[str, Any]:
    """All that the caller may see of one volume."""
    return viewer(call)(detail)


def as_changed(call: Call, detail: Detail) -> dict[str, Any]:
    """The same as the answer to a call that makes or changes it: what Cinder's extensions tell only shows have."""
    made = detailed(call, detail)
    return {name: value for name, value in made.items() if not name.startswith(_OF_SHOWS)}


def viewer(call: Call) -> Callable[[Detail], dict[str, Any]]:
    """How volumes look to this caller; what does not depend on the volume is found out once for a whole page."""
    admin, owners, make_links = call.context.is_admin, _Owners(call), _links(call)
    nowhere = None if call.version >= 69 else True

    def view(detail: Detail) -> dict[str, Any]:
        row = detail.row
        made: dict[str, Any] = {
            "id": row.id,
            "name": row.name,
            "description": row.description,
            "status": row.status,
            "size": row.size,
            "availability_zone": row.availability_zone,
            "created_at": stamp(row.created_at),
            "updated_at": stamp(row.updated_at),
            "volume_type": detail.type_name,
            "volume_type_id": row.volume_type_id,
            "snapshot_id": row.snapshot_id,
            "source_volid": row.source_volid,
            "metadata": dict(detail.metadata),
            "attachments": [_attached(row.id, item, admin) for item in detail.attachments],
            "links": make_links(row.id),
            "user_id": row.user_id,
            "bootable": "true" if row.bootable else "false",
            "encrypted": row.encryption_key_id is not None,
            "replication_status": None,
            "consistencygroup_id": None,
            "multiattach": bool(row.multiattach),
            "group_id": row.group_id,
            # No target is shared between volumes; a volume that lies nowhere yet is told to be locked.
            "shared_targets": False if row.host_id is not None else nowhere,
            "service_uuid": service_uuid(row.host_id, row.backend),
            "consumes_quota": bool(row.use_quota),
        }
        if row.encryption_key_id not in {None, FIXED_KEY}:
            made["encryption_key_id"] = row.encryption_key_id
        if detail.image_metadata:
            made["volume_image_metadata"] = dict(detail.image_metadata)
        tenant, host, migration = owners.shown(row.project_id, row.user_id)
        if tenant:
            made["os-vol-tenant-attr:tenant_id"] = row.project_id
        if host:
            made["os-vol-host-attr:host"] = row.pool_id
        if migration:
            made["os-vol-mig-status-attr:migstat"] = row.migration_status
            made["os-vol-mig-status-attr:name_id"] = None
        if admin:
            made |= {"migration_status": row.migration_status, "provider_id": None, "cluster_name": row.cluster_name}
        return made

    return view


_EXTENDED = (
    "volume_extension:volume_tenant_attribute",
    "volume_extension:volume_host_attribute",
    "volume_extension:volume_mig_status_attribute",
)


class _Owners:
    """Which of the extended attributes the caller sees, decided once for each owner."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._known: dict[tuple[str, str], tuple[bool, ...]] = {}

    def shown(self, project_id: str, user_id: str) -> tuple[bool, ...]:
        """Project, host, migration."""
        key = (project_id, user_id)
        found = self._known.get(key)
        if found is None:
            owner = {"project_id": project_id, "user_id": user_id}
            found = self._known[key] = tuple(self._call.may(rule, owner) for rule in _EXTENDED)
        return found


def _links(call: Call) -> Callable[[str], list[dict[str, str]]]:
    bare = call.link("volumes/")
    bookmark = bare.replace("/v3/", "/", 1)
    return lambda volume_id: [
        {"rel": "self", "href": bare + volume_id},
        {"rel": "bookmark", "href": bookmark + volume_id},
    ]


def links(call: Call, volume_id: str) -> list[dict[str, str]]:
    return _links(call)(volume_id)


@lru_cache(maxsize=4096)
def service_uuid(host_id: str | None, backend: str | None) -> str | None:
    """A stable id for the back end that a volume lies on."""
    return str(uuid5(NAMESPACE_URL, f"brickyard:{host_id}@{backend}")) if host_id and backend else None


def _attached(volume_id: str, item: Attached, admin: bool) -> dict[str, Any]:
    return {
        "id": volume_id,
        "attachment_id": item.id,
        "volume_id": volume_id,
        "server_id": item.server_id,
        "host_name": item.host if admin else None,
        "device": item.mountpoint,
        "attached_at": stamp(item.attached_at),
    }
