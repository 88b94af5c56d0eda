"""The list of volumes: its filters, from which version each is there, and its sort keys."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_

from coordinator.api.conditions import (
    FEW,
    MANY,
    MANY_OF_PROJECT,
    NO_INDEX,
    SOME,
    exact,
    ids,
    like,
    number,
    pairs,
    time,
    truth,
    unindexed,
)
from coordinator.api.lists import Filter, Listing
from coordinator.state.tables.volumes import volume_image_metadata, volume_metadata, volumes


def _on_host(value: str, column: ColumnElement[str] = volumes.c.host_id) -> ColumnElement[bool]:
    """`host`, `host@backend` or `host@backend#pool`."""
    host, _, rest = value.partition("@")
    backend, _, pool = rest.partition("#")
    wanted = [column == host]
    if backend:
        wanted.append(volumes.c.backend == backend)
    if pool:
        wanted.append(volumes.c.pool == pool)
    return and_(*wanted)


_EXACT = {
    "status": MANY_OF_PROJECT, "migration_status": FEW, "availability_zone": MANY, "user_id": FEW,
    "attach_status": NO_INDEX, "volume_type_id": MANY, "snapshot_id": FEW, "source_volid": FEW,
    "encryption_key_id": FEW, "description": NO_INDEX, "name": FEW,
}  # fmt: skip
_SORTED = ("id", "status", "size", "availability_zone", "name", "bootable", "created_at", "updated_at",
           "attach_status", "user_id", "project_id", "volume_type_id", "multiattach", "description",
           "launched_at")  # fmt: skip

VOLUMES = Listing(
    "volume",
    {
        **{name: exact(volumes.c[name], narrows=narrows) for name, narrows in _EXACT.items()},
        "group_id": exact(volumes.c.group_id, 10, narrows=FEW),
        "display_name": exact(volumes.c.name, narrows=FEW),
        "name~": like(volumes.c.name),
        "id": ids(volumes.c.id),
        "size": number(volumes.c.size),
        "host": Filter(
            _on_host, inside=True, narrows=SOME, beside=lambda value: _on_host(value, unindexed(volumes.c.host_id))
        ),
        "bootable": truth("bootable", volumes.c.bootable),
        "multiattach": truth("multiattach", volumes.c.multiattach),
        "consumes_quota": truth("consumes_quota", volumes.c.use_quota, 65),
        "created_at": time("created_at", volumes.c.created_at, 60),
        "updated_at": time("updated_at", volumes.c.updated_at, 60),
        "metadata": pairs("metadata", volume_metadata, "volume_id", volumes.c.id),
        "glance_metadata": pairs("glance_metadata", volume_image_metadata, "volume_id", volumes.c.id, 4),
        "image_metadata": pairs("image_metadata", volume_image_metadata, "volume_id", volumes.c.id),
    },
    {name: name for name in _SORTED} | {"display_name": "name", "display_description": "description"},
    "volumes_links",
    counted=True,
)
