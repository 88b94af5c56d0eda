"""reimage_volume: an image becomes the content of a volume that is there; the old content lasts until it is whole.

The server that is being rebuilt with it hears when it is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Connection

from agent.base.errors import BrickyardError, Invalid
from agent.wire.jobs import VolumeReimage
from coordinator.compute.base import Compute
from coordinator.compute.errors import ReimageNotTold
from coordinator.images.info import ImageInfo
from coordinator.keys.store import KeyStore
from coordinator.operations import sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.errors import UnknownHost, VolumeShared, WaitedTooLong
from coordinator.operations.image_source import TICKET_LOST, Login, close_image, image_source, late_login, open_image
from coordinator.operations.new_volume import SourceTooLarge, TypeNotEncrypted, image_args, smallest
from coordinator.operations.signatures import refusal, verdict
from coordinator.operations.volume_calls import SWITCH_UNCLEAR, key_secret, luks_format, volume_row, volume_secret
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, Result, WaitStep, Workflow
from coordinator.state import attachments, messages, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of


def accept_reimage(
    conn: Connection, requester: Requester, keys: KeyStore, volume_id: str, image: ImageInfo, *, reserved: bool
) -> Operation:
    """`reserved` allows a volume that is reserved for a server being rebuilt.

    Raises SourceTooLarge, TypeNotEncrypted, Invalid, TransitionRefused (400), VolumeShared.
    """
    row = volumes.get(conn, volume_id)
    if image.status != "active":
        raise Invalid(reason=f"Invalid image identifier: image {image.id} has status {image.status}, not active.")
    told = image_args(image)
    refused = refusal(told)
    if refused is not None:
        raise refused
    needed = smallest(image)
    if row.size < needed:
        raise SourceTooLarge(size=row.size, noun="image", id=image.id, needed=needed)
    if image.encrypted and row.encryption_key_id is None:
        of_type = types.get(conn, row.volume_type_id).name if row.volume_type_id else "(none given)"
        raise TypeNotEncrypted(image=image.id, type=of_type)
    if reserved and len(attachments.of_volume(conn, volume_id)) > 1:
        raise VolumeShared(id=volume_id)
    guards = (
        volumes.is_not_shared(volume_id) if reserved else volumes.has_no_attachments(volume_id),
        volumes.is_no_source(volume_id=volume_id),
        volumes.is_not_being_taken(volume_id),
    )
    move(conn, "volume", volume_id, "reimage_reserved" if reserved else "reimage", guards=guards)
    args: dict[str, Any] = {"image": told, "image_key_id": image.key_id}
    if image.key is not None:  # it is kept here until the end
        owner = {"project_id": row.project_id, "user_id": requester.user_id}
        args["image_key_id"] = keys.create(conn, **owner, type=image.key.type, value=image.key.value)
        args["image_key_copied"] = True
    return accept(
        conn, requester, kind="reimage_volume", version=2, resource_type="volume", resource_id=volume_id, args=args
    )


def workflow(keys: KeyStore, compute: Compute | None, login: Login | None = None) -> Workflow:
    """Version 2 of the workflow: the servers that the volume is kept for hear of it."""
    before = workflow_v1(keys, login)

    async def tell(operation: Operation) -> Result | None:
        if compute is None:
            return None
        return (await compute.volume_reimaged(operation.results["commit"]["servers"], operation.resource_id)).result()

    return Workflow(
        kind="reimage_volume",
        version=2,
        steps=(
            *before.steps,
            LocalStep("commit", partial(_commit, keys)),
            WaitStep("tell", tell, needed=lambda operation: bool(operation.results["commit"]["servers"]),
                     cancellable=False),
        ),
        finished=_told,
        failed=partial(_failed, keys),
        attention=_attention,
    )  # fmt: skip


def workflow_v1(keys: KeyStore, login: Login | None = None) -> Workflow:
    """Version 1 of the workflow."""

    def make(conn: Connection, operation: Operation) -> JobCall:
        row, args = volume_row(conn, operation), operation.args
        secrets = volume_secret(conn, keys, row)
        if args["image"]["encrypted"]:
            secrets["image"] = key_secret(conn, keys, args["image_key_id"])
        job = VolumeReimage(
            backend=backend_of(row),
            volume_id=row.id,
            size_bytes=row.usable_bytes or sizes.usable_bytes(row.size),
            image=image_source(conn, operation),
            encryption=luks_format(row),
        )
        return JobCall(row.host_id, job, secrets, late=late_login(operation, login))

    return Workflow(
        kind="reimage_volume",
        version=1,
        steps=(
            JobStep("open_image", open_image, undo=close_image),
            JobStep("make", make, retry_from="open_image", again_on=TICKET_LOST, final=True, unclear=SWITCH_UNCLEAR),
            JobStep("close_image", close_image, gone_is_done=True),
        ),
        finished=partial(_finished, keys),
        failed=partial(_failed, keys),
        attention=_attention,
    )


def _drop_copy(conn: Connection, keys: KeyStore, operation: Operation) -> None:
    if operation.args.get("image_key_copied"):
        keys.delete(conn, operation.args["image_key_id"])


def _finished(keys: KeyStore, conn: Connection, operation: Operation) -> None:
    _drop_copy(conn, keys, operation)
    row, made = volume_row(conn, operation), operation.results["make"]
    image: dict[str, Any] = operation.args["image"]
    said = verdict(image, verified=bool(made.get("verified")))
    volumes.put_image_metadata(conn, row.id, {**image["properties"], **said})
    event = "reimage_ended" if row.previous_status == "reserved" else "created"
    values = {"device_bytes": made["device_bytes"], "usable_bytes": made["usable_bytes"]}
    move(conn, "volume", row.id, event, attention=None, bootable=True, image_id=image["id"], **values)


def _commit(keys: KeyStore, conn: Connection, operation: Operation) -> Result:
    """From here on the volume has its new content, whatever becomes of telling it."""
    _finished(keys, conn, operation)
    return {"servers": attachments.servers(conn, operation.resource_id, reserved=True)}


def _told(conn: Connection, operation: Operation) -> None:
    refused = (operation.results["tell"] or {}).get("refused") or {}
    if refused:
        reason = "; ".join(f"server {server}: {why}" for server, why in refused.items())
        messages.record(conn, operation, ReimageNotTold(reason=reason))


def _failed(keys: KeyStore, conn: Connection, operation: Operation, error: BrickyardError) -> None:
    """The old content is whole, unless nobody can say how far the host came."""
    _drop_copy(conn, keys, operation)
    unclear = isinstance(error, (WaitedTooLong, UnknownHost)) or error.code in SWITCH_UNCLEAR
    event = "create_failed" if unclear else "reimage_ended"
    move_if(conn, "volume", operation.resource_id, event, attention=str(error) if unclear else None)
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, "create_failed", attention=reason)
