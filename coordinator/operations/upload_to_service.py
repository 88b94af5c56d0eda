"""upload_to_service: a volume's bytes become the data of an image that was registered at the image service.

The host of the volume sends them itself. The image was registered by the caller's own authority; when the data do
not get there it is withdrawn again by the site's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.base.ids import new_id
from agent.wire.jobs import ImageService, ImageUpload, ImageWithdraw
from coordinator.images import info
from coordinator.images.client import ImageClient
from coordinator.images.errors import FormatNotSent, GlanceAway
from coordinator.keys.store import KeyStore
from coordinator.operations import image_volume
from coordinator.operations.accept import Requester, accept
from coordinator.operations.image_source import Login, token_of
from coordinator.operations.image_volume import ImageVolumes
from coordinator.operations.upload_volume import NewImage, container_of, inherited
from coordinator.operations.volume_calls import volume_row
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, WaitStep, Workflow
from coordinator.state import messages, metadata, registered, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of

STORE = "image_service:store_id"
"""The extra spec of a volume type that names a store of the image service."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The image at the service: its address there, whether hosts need a login, and the clone of the volume's key.

    `clone`: it may become one of `owner` that is a clone of the volume.
    """

    id: str
    url: str
    needs_login: bool
    key_id: str | None = None
    compress: bool = False
    owner: str = ""
    clone: bool = False
    disk_format: str = "raw"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to register: the fields of an image, and the key that was cloned for it."""

    values: Mapping[str, Any]
    key_id: str | None = field(default=None)


def prepare(conn: Connection, requester: Requester, keys: KeyStore, wanted: NewImage, row: Row[Any]) -> Wanted:
    """Check the volume, clone its key, and write down what will be asked for; raises TransitionRefused.

    Undone by `forget`, or later by whoever looks after images that were registered.
    """
    guards = (volumes.has_no_attachments(row.id),)
    move(conn, "volume", row.id, "upload", guards=guards)
    move(conn, "volume", row.id, "uploaded")
    values: dict[str, Any] = inherited(metadata.read(conn, "volume-image", row.id))
    key_id = None
    if row.encryption_key_id is not None:
        key_id = keys.clone(conn, row.encryption_key_id, project_id=row.project_id, user_id=requester.user_id)
        values |= {
            info.FORMAT: "LUKSv2" if row.encryption_format == "luks2" else "LUKSv1",
            info.KEY_ID[0]: key_id,
            info.KEY_POLICY[0]: info.DELETE_WITH_IMAGE,
            info.DECRYPT_SIZE: str(row.usable_bytes),
        }
    image_id = new_id()
    registered.note(conn, image_id, key_id)
    return Wanted(
        {
            **values,
            "id": image_id,
            "name": wanted.name,
            "visibility": wanted.visibility,
            "protected": wanted.protected,
            "disk_format": wanted.disk_format,
            "container_format": container_of(row, wanted),
            "min_disk": row.size,
        },
        key_id,
    )


def forget(conn: Connection, keys: KeyStore, wanted: Wanted) -> None:
    """Remove the key that was cloned for an image that will not be."""
    if registered.drop(conn, wanted.values["id"]) and wanted.key_id is not None:
        keys.delete(conn, wanted.key_id)


def accept_upload(conn: Connection, requester: Requester, volume_id: str, image: Registered) -> Operation:
    """Raises TransitionRefused; GlanceAway for an image that was given up, as its call took too long."""
    row = move(conn, "volume", volume_id, "upload", guards=(volumes.has_no_attachments(volume_id),))
    args = {
        "image_id": image.id,
        "url": image.url,
        "needs_login": image.needs_login,
        "key_id": image.key_id,
        "headers": _headers(conn, row),
        "compress": image.compress,
        "image_owner": image.owner,
        "clone": image.clone and row.encryption_key_id is None and not image.compress and image.disk_format == "raw",
        "disk_format": image.disk_format,
    }
    operation = accept(
        conn, requester, kind="upload_to_service", version=2, resource_type="volume", resource_id=volume_id, args=args
    )
    if not registered.accepted(conn, image.id, operation.id):
        raise GlanceAway(reason="it took too long to register the image")
    return operation


def _headers(conn: Connection, row: Row[Any]) -> dict[str, str]:
    """Where the service should put the data: the store of the volume's type, and beside which other image."""
    found = {}
    store = types.extra_specs(conn, row.volume_type_id).get(STORE) if row.volume_type_id else None
    if store:
        found["x-image-meta-store"] = store
    base = metadata.read(conn, "volume-image", row.id).get("image_id")
    if base:
        found["x-openstack-base-image-ref"] = base
    return found


def workflow(keys: KeyStore, login: Login | None = None, image_volumes: ImageVolumes | None = None) -> Workflow:
    """Version 2 of the workflow: where the service keeps volumes, a clone is the image."""
    before, kept = workflow_v1(keys, login), image_volumes or ImageVolumes(ImageClient())
    image, send = before.steps
    assert isinstance(send, JobStep)
    send_call = send.call

    def send_unless_taken(conn: Connection, operation: Operation) -> JobCall | None:
        return None if image_volume.is_taken(operation) else send_call(conn, operation)

    return replace(
        before,
        version=2,
        steps=(
            LocalStep("volume", kept.make, undo=image_volume.forget_unless_settled),
            JobStep("clone", image_volume.clone, undo=image_volume.unclone, answers=image_volume.NO_CLONE),
            image,
            WaitStep("offer", kept.offer, needed=image_volume.is_cloned),
            JobStep("drop", image_volume.drop),
            LocalStep("settle", image_volume.settle),
            replace(send, call=send_unless_taken),
            LocalStep("as_asked", _as_asked),
        ),
    )


def workflow_v1(keys: KeyStore, login: Login | None = None) -> Workflow:
    """Version 1 of the workflow."""

    def send(conn: Connection, operation: Operation) -> JobCall:
        row, args = volume_row(conn, operation), operation.args
        job = ImageUpload(
            backend=backend_of(row),
            volume_id=row.id,
            image_id=args["image_id"],
            service=_service(args, args["headers"]),
            compress=bool(args.get("compress")),
            disk_format=args.get("disk_format", "raw"),
        )
        return JobCall(row.host_id, job, late=_late(args))

    def withdraw(conn: Connection, operation: Operation) -> JobCall:
        row, args = volume_row(conn, operation), operation.args
        job = ImageWithdraw(image_id=args["image_id"], service=_service(args, {}))
        return JobCall(row.host_id, job, late=_late(args))

    def _late(args: Mapping[str, Any]) -> Any:
        return token_of(login) if args["needs_login"] else None

    def failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
        if operation.args["key_id"] is not None:
            keys.delete(conn, operation.args["key_id"])
        registered.drop(conn, operation.args["image_id"])
        move_if(conn, "volume", operation.resource_id, "uploaded")
        messages.record(conn, operation, error)

    return Workflow(
        kind="upload_to_service",
        version=1,
        steps=(JobStep("image", _nothing, undo=withdraw), JobStep("send", send)),
        finished=_finished,
        failed=failed,
        attention=_attention,
    )


def _as_asked(conn: Connection, operation: Operation) -> None:
    """An agent of an older release passes over the format that it is told of."""
    sent, wanted = operation.results["send"], operation.args["disk_format"]
    if sent is not None and sent.get("disk_format", "raw") != wanted:
        raise FormatNotSent(host=volume_row(conn, operation).host_id, format=wanted)


def _nothing(conn: Connection, operation: Operation) -> None:
    """Only the undo of this step does something."""


def _service(args: Mapping[str, Any], headers: dict[str, str]) -> ImageService:
    return ImageService(url=args["url"], token=args["needs_login"], headers=headers)


def _finished(conn: Connection, operation: Operation) -> None:
    registered.uploaded(conn, operation.args["image_id"])
    move(conn, "volume", operation.resource_id, "uploaded")


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, "uploaded", attention=reason)
