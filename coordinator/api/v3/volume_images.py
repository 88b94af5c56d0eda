"""Volumes and images: an image made of a volume, and an image as the new content of one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.base.faults import declare, fault_point
from coordinator.api.acting import requester
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Boolean, RequiredName, Since, Time, Uuid
from coordinator.api.route import Resource, action
from coordinator.api.v3.volume_connections import mine
from coordinator.api.v3.volumes import image_of
from coordinator.images.catalog import Caller
from coordinator.images.client import ImageClient
from coordinator.images.errors import GlanceAway, GlanceRefuses
from coordinator.images.settings import ImagesSection
from coordinator.keys.store import KeyStore
from coordinator.operations.engine import Engine
from coordinator.operations.reimage_volume import accept_reimage
from coordinator.operations.upload_volume import NewImage, accept_upload
from coordinator.state import volume_lists
from coordinator.state.operations import Operation

_PATH = "/volumes/{volume_id}/action"
_ACTIONS = "volume_extension:volume_actions:"
declare("coordinator.image.noted", "coordinator.image.registered")


class UploadBody(Body):
    """The data are sent as they are, of an encrypted volume in a LUKS container, or as qcow2, which leaves out what is
    a hole. `force` changes nothing.

    Container `compressed`, where the site allows it: packed by gzip.
    """

    image_name: RequiredName
    force: Boolean = False
    disk_format: Literal["raw", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ploop"] = "raw"
    container_format: str | None = None
    visibility: Annotated[Literal["community", "public", "private", "shared"], Since(1)] = "private"
    protected: Annotated[Boolean, Since(1)] = False


class ReimageBody(Body):
    image_id: Uuid
    reimage_reserved: Boolean = False


class UploadAnswer(Answer):
    id: str
    updated_at: Time | None
    status: str
    display_description: str | None
    size: int
    volume_type: dict[str, Any] | None
    image_id: str
    container_format: str
    disk_format: str
    image_name: str
    visibility: Annotated[str, Since(1)] = "private"
    protected: Annotated[bool, Since(1)] = False


def answered(row: Row[Any], type_name: str | None, image: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to an upload of the volume `row` as `image`."""
    return {
        "id": row.id,
        "updated_at": row.updated_at,
        "status": "uploading",
        "display_description": row.description,
        "size": row.size,
        "volume_type": {"id": row.volume_type_id, "name": type_name} if row.volume_type_id else None,
        "image_id": image["id"],
        "image_name": image["name"],
        **{name: image[name] for name in ("container_format", "disk_format", "visibility", "protected")},
    }


async def upload_outside(call: Call, wanted: NewImage) -> dict[str, Any]:
    """The image is registered by the caller's own authority before anything else is begun."""
    from coordinator.images.glance import Glance
    from coordinator.operations import upload_to_service as service

    glance, token = call.services.get(ImageClient), call.request.headers.get("X-Auth-Token")
    assert isinstance(glance, Glance)
    keys, db = call.services.get(KeyStore), call.services.db

    def prepare(conn: Connection) -> service.Wanted:
        row = mine(conn, call)
        return service.prepare(conn, requester(call, row.project_id), keys, wanted, row)

    prepared = await db.write(prepare)
    fault_point("coordinator.image.noted")
    try:
        image = await glance.create(prepared.values, token)
    except GlanceRefuses:
        await db.write(lambda conn: service.forget(conn, keys, prepared))
        raise
    fault_point("coordinator.image.registered")
    registered = service.Registered(
        str(image["id"]), glance.address(str(image["id"])), glance.needs_login, prepared.key_id,
        wanted.compress, str(image.get("owner") or ""), glance.upload_clones, wanted.disk_format,
    )  # fmt: skip

    def accept(conn: Connection) -> tuple[Operation, tuple[Row[Any], str | None]]:
        row = mine(conn, call)
        name = volume_lists.type_names(conn, {row.volume_type_id}).get(row.volume_type_id)
        return service.accept_upload(conn, requester(call, row.project_id), row.id, registered), (row, name)

    try:
        _, (row, type_name) = await call.services.get(Engine).submit(accept)
    except BrickyardError:
        with suppress(GlanceAway):  # what is left there is withdrawn later
            if await glance.withdraw(registered.id):
                await db.write(lambda conn: service.forget(conn, keys, prepared))
        raise
    return answered(row, type_name, image)


async def upload(call: Call) -> dict[str, Any]:
    body = call.valid(UploadBody)
    section = call.services.find(ImagesSection)
    container = body.container_format or "bare"
    compress = container == "compressed" and section is not None and section.compressed_uploads
    if body.disk_format not in {"raw", "qcow2"} or (container not in {"bare", "luks"} and not compress):
        raise BadRequest(
            reason=f"Volumes are uploaded as raw or qcow2 images in container bare, not as {body.disk_format[:32]} in "
            f"{container[:32]}; convert the image afterwards."
        )
    if body.visibility == "public":
        call.require(f"{_ACTIONS}upload_public")
    client, shown = call.services.find(ImageClient), (body.visibility, body.protected)
    wanted = NewImage(call.params["volume_id"], body.image_name, *shown, compress, body.disk_format)
    if client is not None and client.outside:
        return await upload_outside(call, wanted)
    keys = call.services.get(KeyStore)

    def accept(conn: Connection) -> tuple[Operation, tuple[Row[Any], Row[Any], str | None]]:
        row = mine(conn, call)
        caller = Caller(row.project_id, call.context.is_admin, may_publish=True)
        operation, image = accept_upload(conn, requester(call, row.project_id), keys, caller, wanted)
        name = volume_lists.type_names(conn, {row.volume_type_id}).get(row.volume_type_id)
        return operation, (row, image, name)

    _, (row, image, type_name) = await call.services.get(Engine).submit(accept)
    fields = ("id", "name", "container_format", "disk_format", "visibility", "protected")
    return answered(row, type_name, {name: getattr(image, name) for name in fields})


async def reimage(call: Call) -> None:
    body = call.valid(ReimageBody)
    image = await image_of(call, body.image_id)
    assert image is not None
    keys = call.services.get(KeyStore)

    def accept(conn: Connection) -> tuple[Operation, None]:
        row = mine(conn, call)
        if body.reimage_reserved:
            call.require("volume:reimage_reserved", {"project_id": row.project_id, "user_id": row.user_id})
        who = requester(call, row.project_id)
        return accept_reimage(conn, who, keys, row.id, image, reserved=body.reimage_reserved), None

    await call.services.get(Engine).submit(accept)


def resource() -> Resource:
    """The routes."""
    return Resource(
        "volume_images",
        "Images made of volumes, and volumes made anew of images.",
        (
            action(_PATH, "os-volume_upload_image", upload, f"{_ACTIONS}upload_image", "Make an image of a volume.",
                   body=UploadBody, answer=UploadAnswer, answer_key="os-volume_upload_image"),
            action(_PATH, "os-reimage", reimage, "volume:reimage", "Give a volume the content of an image.",
                   body=ReimageBody, since=68),
        ),
    )  # fmt: skip
