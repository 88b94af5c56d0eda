"""The built-in catalog of images. Plain functions on the caller's `Connection`.

Who may see what: its owner and administrators everything; others what is public or community, the latter only by id
or when asked for. Who may change: owner and administrators. A status moves only along the lifecycle table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.ids import is_id, new_id
from coordinator.images import info, patch
from coordinator.images.errors import (
    ImageDeactivated,
    ImageHasNoData,
    ImageInvalid,
    ImageKeyUnusable,
    ImageNotYours,
    ImageProtected,
    NoImageData,
    NoSuchImage,
    NoSuchTag,
    PublicNeedsAdmin,
)
from coordinator.images.fields import WRITABLE, checked, checked_properties
from coordinator.images.info import ImageInfo
from coordinator.state import images as rows
from coordinator.state import keys as key_rows
from coordinator.state.images import Filters, Page
from coordinator.state.transition import enter, move


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom the catalog answers."""

    project_id: str
    is_admin: bool = False
    may_publish: bool = False

    def sees(self, row: Row[Any]) -> bool:
        return self.is_admin or row.owner == self.project_id or row.visibility in rows.OPEN_TO_ALL


@dataclass(frozen=True, slots=True)
class Image:
    """A row with its properties."""

    row: Row[Any]
    properties: Mapping[str, str] = field(default_factory=dict)


def create(conn: Connection, caller: Caller, values: Mapping[str, Any], *, image_id: str | None = None) -> Image:
    """A new image in status queued; keys that are no fields of an image are its properties. Raises ImageInvalid."""
    given = {name: checked(name, value) for name, value in values.items() if name in WRITABLE}
    properties = checked_properties({key: value for key, value in values.items() if key not in WRITABLE})
    owner = caller.project_id
    if not owner:
        raise ImageInvalid(reason="the credentials name no project that it could belong to; log in to a project")
    given.setdefault("tags", [])
    given.setdefault("visibility", "private")
    _may_publish(caller, given["visibility"])
    _check_key(conn, owner, image_id or "", properties)
    if image_id is not None and not is_id(image_id):
        raise ImageInvalid(reason="id must be a UUID in lower case")
    if image_id is not None and rows.with_any_state(conn, image_id) is not None:
        taken = ImageInvalid(reason=f"there is or was an image with id {image_id}")
        taken.status = 409
        raise taken
    row = enter(conn, "image", "create", id=image_id or new_id(), owner=owner, **given)
    rows.put_properties(conn, row.id, properties)
    return Image(row, properties)


def show(conn: Connection, caller: Caller, image_id: str) -> Image:
    """Raises NoSuchImage, also for what the caller may not see."""
    row = rows.get(conn, image_id)
    if row is None or not caller.sees(row):
        raise NoSuchImage(id=image_id[:64])
    return Image(row, rows.properties(conn, [row.id])[row.id])


def owned(conn: Connection, caller: Caller, image_id: str) -> Image:
    """Like `show`, for a change: raises ImageNotYours for an image that the caller may only use."""
    image = show(conn, caller, image_id)
    if not caller.is_admin and image.row.owner != caller.project_id:
        raise ImageNotYours(id=image_id)
    return image


def listing(conn: Connection, filters: Filters, page: Page) -> list[Image]:
    """One page of images; raises ImageInvalid for an unknown marker."""
    if page.marker is not None:
        last = rows.with_any_state(conn, page.marker)
        if last is None or not (filters.project_id is None or Caller(filters.project_id).sees(last)):
            raise ImageInvalid(reason=f"there is no image {page.marker[:64]} to start behind")
    found = rows.listing(conn, filters, page)
    properties = rows.properties(conn, [row.id for row in found])
    return [Image(row, properties[row.id]) for row in found]


def update(conn: Connection, caller: Caller, image_id: str, operations: Any) -> Image:
    """Apply a JSON patch (see `patch`); the formats can be changed only while there are no data."""
    image = owned(conn, caller, image_id)
    change = patch.apply(operations, tags=image.row.tags, properties=image.properties)
    if image.row.status != "queued":
        for name in ("disk_format", "container_format"):
            if change.values.get(name, getattr(image.row, name)) != getattr(image.row, name):
                raise ImageInvalid(reason=f"{name} can only be changed before the data are uploaded")
    if change.values.get("visibility", image.row.visibility) != image.row.visibility:
        _may_publish(caller, change.values["visibility"])
    if change.properties != image.properties:
        _check_key(conn, image.row.owner, image_id, change.properties)
        rows.put_properties(conn, image_id, change.properties)
    rows.set_values(conn, image_id, **change.values)
    return show(conn, caller, image_id)


def retag(conn: Connection, caller: Caller, image_id: str, tag: str, *, add: bool) -> None:
    """Add or remove one tag; adding it twice is fine, removing one that is not there raises NoSuchTag."""
    tags = list(owned(conn, caller, image_id).row.tags)
    if add and tag not in tags:
        tags.append(tag)
    elif not add and tag not in tags:
        raise NoSuchTag(id=tag[:255])
    elif not add:
        tags.remove(tag)
    rows.set_values(conn, image_id, tags=checked("tags", tags))


def set_active(conn: Connection, caller: Caller, image_id: str, *, active: bool) -> None:
    """Let nobody use the image for now, or everybody again; twice is fine. Raises ImageHasNoData."""
    row = owned(conn, caller, image_id).row
    if row.status not in {"active", "deactivated"}:
        raise ImageHasNoData(id=image_id, status=row.status)
    if active != (row.status == "active"):
        move(conn, "image", image_id, "reactivate" if active else "deactivate")


def readable(caller: Caller, row: Row[Any]) -> None:
    """Whether there are data that the caller may read; raises NoImageData, ImageDeactivated."""
    if row.status == "deactivated" and not caller.is_admin:
        raise ImageDeactivated(id=row.id)
    if row.status not in {"active", "deactivated"} or row.host_id is None:
        raise NoImageData(id=row.id, status=row.status)


def deletable(conn: Connection, caller: Caller, image_id: str) -> Image:
    """The image, when the caller may delete it; raises NoSuchImage, ImageNotYours, ImageProtected."""
    image = owned(conn, caller, image_id)
    if image.row.protected:
        raise ImageProtected(id=image_id)
    return image


def image_for_volume(conn: Connection, image_id: str, project_id: str, is_admin: bool) -> ImageInfo:
    """What making a volume needs to know; raises NoSuchImage, ImageKeyUnusable. The status is the caller's to check.

    The secret must be the image owner's or the caller's own: naming somebody else's secret gives no access to it.
    """
    image = show(conn, Caller(project_id, is_admin), image_id)
    found = describe(image)
    check_key(conn, found, project_id)
    return found


def check_key(conn: Connection, image: ImageInfo, project_id: str) -> None:
    """Raise ImageKeyUnusable unless an encrypted image's secret is its owner's or `project_id`'s."""
    if not image.encrypted:
        return
    if image.key_id is None:
        raise ImageKeyUnusable(id=image.id, reason="the image names none")
    key = key_rows.show(conn, image.key_id)
    if key is None or key.project_id not in (image.owner, project_id):
        raise ImageKeyUnusable(id=image.id, reason="it does not exist, or neither you nor the image's owner owns it")


def describe(image: Image) -> ImageInfo:
    """The image as volumes see it."""
    row = image.row
    read = info.encryption(image.properties)
    encrypted = read.named or "luks" in (row.container_format, row.disk_format)
    return ImageInfo(
        id=row.id,
        name=row.name,
        status=row.status,
        owner=row.owner,
        disk_format=row.disk_format or "",
        container_format=row.container_format or "",
        size=row.size or 0,
        virtual_size=row.virtual_size,
        min_disk=row.min_disk,
        sha256=row.os_hash_value if row.os_hash_algo == "sha256" else None,
        host_id=row.host_id,
        encrypted=encrypted,
        key_id=read.key_id,
        delete_key=read.delete_key,
        decrypt_size=(read.decrypt_size or row.virtual_size) if encrypted else None,
        properties=_remembered(image),
        version=f"{row.updated_at or row.created_at} {row.os_hash_value}"[:255],
    )


def _remembered(image: Image) -> dict[str, str]:
    row = image.row
    own = {key: value for key, value in image.properties.items() if not info.is_reserved(key)}
    known = {
        "image_id": row.id,
        "image_name": row.name or "",
        "checksum": row.checksum,
        "container_format": row.container_format,
        "disk_format": row.disk_format,
        "min_disk": row.min_disk,
        "min_ram": row.min_ram,
        "size": row.size,
    }
    return {**own, **{key: str(value) for key, value in known.items() if value is not None}}


def _may_publish(caller: Caller, visibility: str) -> None:
    if visibility == "public" and not (caller.is_admin or caller.may_publish):
        raise PublicNeedsAdmin


def _check_key(conn: Connection, owner: str, image_id: str, properties: Mapping[str, str]) -> None:
    key_id = info.encryption(properties).key_id
    if key_id is None:
        return
    key = key_rows.show(conn, key_id)
    if key is None or key.project_id != owner:
        raise ImageKeyUnusable(id=image_id or "(new)", reason="the image's project has no such secret")
