"""A clone of a volume becomes the data of an image, where the image service keeps images as volumes of this site.

Steps of an upload: the clone is made beside the volume, then offered to the service. Where that will not have it, or
there is no room or no quota for a clone, all of it is taken back and the data are sent as ever.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from agent.base.ids import new_id
from agent.base.log import get_logger
from agent.wire.jobs import VolumeClone, VolumeDelete
from coordinator.images.client import ImageClient
from coordinator.images.errors import GlanceAway
from coordinator.operations import sizes
from coordinator.operations.image_cache import NOT_KEPT, Owner
from coordinator.operations.volume_calls import PLACE, unmake, volume_row
from coordinator.operations.workflow import JobCall, Result
from coordinator.quota import limits
from coordinator.quota.errors import OverQuota
from coordinator.scheduler.claims import claim, release
from coordinator.state import types, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import enter, move
from coordinator.state.volumes import backend_of

log = get_logger(__name__)
NO_CLONE = NOT_KEPT
"""What keeps a clone from being made, but not the data from being sent."""
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class ImageVolumes:
    """The steps; `owner` is whose the clones are, None: they belong to the volume's project and count to its quota."""

    client: ImageClient
    owner: Owner | None = None

    def make(self, conn: Connection, operation: Operation) -> Result | None:
        """The row of the clone and its place in the pool; None: the data are sent."""
        if not operation.args.get("clone"):
            return None
        row, image_id = volume_row(conn, operation), operation.args["image_id"]
        claimed = sizes.claimed_bytes(row.size, None)
        project_id, user_id = row.project_id, operation.user_id
        if self.owner is not None:
            project_id, user_id = self.owner.project_id, self.owner.user_id
        elif not _has_quota(conn, project_id, row.volume_type_id, row.size):
            return None
        if not claim(conn, row.pool_id, claimed):
            return None
        made = enter(
            conn, "volume", "create", id=new_id(), project_id=project_id, user_id=user_id, name=f"image-{image_id}",
            size=row.size, volume_type_id=row.volume_type_id, multiattach=False, bootable=row.bootable,
            use_quota=self.owner is None, device_bytes=claimed, **{name: getattr(row, name) for name in PLACE},
        )  # fmt: skip
        about = {"glance_image_id": image_id, "image_owner": operation.args["image_owner"]}
        volumes.put_metadata(conn, made.id, about)
        # Whoever wrote to it would change the image.
        volumes.put_metadata(conn, made.id, {"readonly": "True"}, admin=True)
        return {"volume": made.id, "claimed": claimed, "pool_id": row.pool_id}

    async def offer(self, operation: Operation) -> Result:
        """Whether the service has taken it; raises GlanceAway when it does not answer for long."""
        args, deadline = operation.args, time.monotonic() + _PATIENCE_S
        volume_id, store = operation.results["volume"]["volume"], args["headers"].get("x-image-meta-store")
        while True:
            try:
                return {"taken": await self.client.add_volume(args["image_id"], volume_id, store)}
            except GlanceAway as away:
                if time.monotonic() > deadline:
                    raise
                log.info("an image is registered later", image=args["image_id"], reason=str(away))
                await asyncio.sleep(away.retry_after or 1)


def forget_unless_settled(conn: Connection, operation: Operation) -> None:
    """Undo of `make`; by now there are no data of it."""
    made = operation.results["volume"]
    if made is not None and not operation.results.get("settle"):
        unmake(conn, made["volume"], made["pool_id"], int(made["claimed"]))


def clone(conn: Connection, operation: Operation) -> JobCall | None:
    made, row = operation.results["volume"], volume_row(conn, operation)
    if made is None:
        return None
    size, copy_id = sizes.usable_bytes(row.size), made["volume"]
    job = VolumeClone(backend=backend_of(row), volume_id=copy_id, size_bytes=size, source_volume_id=row.id)
    return JobCall(row.host_id, job)


def unclone(conn: Connection, operation: Operation) -> JobCall | None:
    """The clone's data go where they were made."""
    made, row = operation.results.get("volume"), volume_row(conn, operation)
    if made is None or row.host_id is None:
        return None
    return JobCall(row.host_id, VolumeDelete(backend=backend_of(row), volume_id=made["volume"]))


def is_cloned(operation: Operation) -> bool:
    """Whether there is something to offer."""
    return operation.results.get("volume") is not None and "refused" not in (operation.results.get("clone") or {})


def is_taken(operation: Operation) -> bool:
    return bool((operation.results.get("offer") or {}).get("taken"))


def drop(conn: Connection, operation: Operation) -> JobCall | None:
    """What was offered in vain."""
    return None if is_taken(operation) else unclone(conn, operation)


def settle(conn: Connection, operation: Operation) -> Result | None:
    """The clone is a volume from now on, or forgotten."""
    made: dict[str, Any] | None = operation.results["volume"]
    if made is None:
        return None
    if not is_taken(operation):
        unmake(conn, made["volume"], made["pool_id"], int(made["claimed"]))
        return {"forgotten": True}
    done, row = operation.results["clone"], volume_row(conn, operation)
    release(conn, made["pool_id"], int(made["claimed"]) - int(done["device_bytes"]))
    values = {"device_bytes": done["device_bytes"], "usable_bytes": done["usable_bytes"], "launched_at": utcnow()}
    # Where hosts serve it together, another one may have done it.
    move(conn, "volume", made["volume"], "created", **values, **{name: getattr(row, name) for name in PLACE})
    return None


def _has_quota(conn: Connection, project_id: str, type_id: str | None, size: int) -> bool:
    found = types.get(conn, type_id) if type_id else None
    try:
        limits.check(conn, project_id, found.name if found else None, volumes=1, gigabytes=size, volume_size=size)
    except OverQuota as error:
        log.info("no clone is made for an image", project=project_id, reason=str(error))
        return False
    return True
