"""Images that Nova makes of a server with volumes: they have no bytes and name snapshots in `block_device_mapping`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.images.info import ImageInfo
from coordinator.operations.new_volume import NewVolume
from coordinator.state import snapshots

MAPPING = "block_device_mapping"
_SINCE = 46


class BootSnapshotGone(NotFound):
    code = "images.boot-snapshot-gone"
    sentence = "Nova specific image is found, but boot volume snapshot id:{id} not found."
    hint = "The snapshot was deleted, or belongs to another project: name another image."


async def from_its_snapshot(call: Call, wanted: NewVolume) -> NewVolume:
    """The volume of the server's first disk is made of that disk's snapshot; others of their image, as asked for.

    Raises BootSnapshotGone, also for a snapshot of another project, and BadRequest before 3.46 for what has no bytes.
    """
    image = wanted.image
    snapshot_id = _boot_snapshot(image) if image is not None else None
    early = call.version < _SINCE
    if image is None or snapshot_id is None or (early and image.size != 0):
        return wanted
    project_id = call.context.project_id
    try:
        await call.services.db.read(lambda conn: snapshots.get(conn, snapshot_id, project_id))
    except NotFound:
        raise BootSnapshotGone(id=snapshot_id) from None
    if early:
        raise BadRequest(
            reason=f"Image {image.id} has no data of its own, but names snapshot {snapshot_id}: ask for a volume of "
            f"that snapshot, or with microversion 3.{_SINCE} or later."
        )
    return replace(wanted, image=None, snapshot_id=snapshot_id)


def _boot_snapshot(image: ImageInfo) -> str | None:
    """What the server boots from, when it was a volume; what can not be read counts as nothing."""
    try:
        disks: Any = json.loads(image.properties.get(MAPPING, ""))
    except (ValueError, RecursionError):
        return None
    for disk in disks if isinstance(disks, list) else ():
        if isinstance(disk, dict) and disk.get("source_type") == "snapshot" and _is_first(disk.get("boot_index")):
            found = disk.get("snapshot_id")
            return found[:64] if isinstance(found, str) and found else None
    return None


def _is_first(index: Any) -> bool:
    return index == 0 and not isinstance(index, bool)
