"""upload_volume: a volume's bytes become an image, on the data port from its host to the one that keeps images.

An encrypted volume is sent as it lies there: the image is encrypted by the same header, and names a secret of its own
that is a clone of the volume's. The volume is `uploading` meanwhile and nobody may write to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Invalid
from agent.wire.jobs import ImageCommit, ImageDelete, ImageFromVolume, TransferClose, TransferOpen, TransferRef
from coordinator.images import catalog, info
from coordinator.images.catalog import Caller
from coordinator.images.errors import NoImageStore
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester, accept
from coordinator.operations.errors import UnknownHost
from coordinator.operations.upload_image import LIFETIME_S
from coordinator.operations.volume_calls import volume_row
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.state import enrolment, messages, metadata, volumes
from coordinator.state import images as rows
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of

_CORE = frozenset(
    {"image_id", "image_name", "checksum", "container_format", "disk_format", "min_disk", "min_ram", "size",
     *info.SIGNATURE}
)  # fmt: skip
# The second: a host that was killed when all was sent can not say so by the same ticket.
_TICKET_LOST = frozenset({"transfer.unknown", "transfer.mismatch"})


@dataclass(frozen=True, slots=True)
class NewImage:
    """The image to be made of a volume."""

    volume_id: str
    name: str
    visibility: str = "private"
    protected: bool = False
    compress: bool = False
    disk_format: str = "raw"


def container_of(row: Row[Any], wanted: NewImage) -> str:
    """The container format of an image of the volume; raises Invalid."""
    if row.encryption_key_id is None:
        return "compressed" if wanted.compress else "bare"
    if wanted.compress or wanted.disk_format != "raw":
        raise Invalid(
            reason="Invalid input received: an encrypted volume is sent as it lies there, raw and not compressed."
        )
    return "luks"


def accept_upload(
    conn: Connection, requester: Requester, keys: KeyStore, caller: Caller, wanted: NewImage
) -> tuple[Operation, Row[Any]]:
    """The operation and the row of the image. Raises NoImageStore, TransitionRefused, PublicNeedsAdmin."""
    host_id = rows.store_host(conn)
    if host_id is None:
        raise NoImageStore
    guards = (volumes.has_no_attachments(wanted.volume_id),)
    row = move(conn, "volume", wanted.volume_id, "upload", guards=guards)
    remembered = metadata.read(conn, "volume-image", row.id)
    values: dict[str, Any] = inherited(remembered)
    encrypted = row.encryption_key_id is not None
    if encrypted:
        key_id = keys.clone(conn, row.encryption_key_id, project_id=caller.project_id, user_id=requester.user_id)
        values |= info.encrypted(key_id, row.encryption_format, row.usable_bytes)
    values |= {
        "name": wanted.name,
        "visibility": wanted.visibility,
        "protected": wanted.protected,
        "disk_format": wanted.disk_format,
        "container_format": container_of(row, wanted),
        "min_disk": row.size,
    }
    image = catalog.create(conn, caller, values).row
    image = move(conn, "image", image.id, "upload", host_id=host_id)
    args = {
        "host_id": host_id,
        "image_id": image.id,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "encrypted": encrypted,
        "max_bytes": _most(row.device_bytes, wanted),
    }
    operation = accept(conn, requester, kind="upload_volume", resource_type="volume", resource_id=row.id, args=args)
    return operation, image


def _most(size: int, wanted: NewImage) -> int:
    """A qcow2 has tables, and what does not pack grows by a little."""
    if wanted.disk_format == "qcow2":
        size += size // 4096 + (4 << 20)
    return size + size // 1000 + (1 << 20) if wanted.compress else size


def inherited(remembered: Mapping[str, str]) -> dict[str, str]:
    """What an image of a volume takes over of the image that the volume was made of; a signature is of other bytes."""
    return {key: value for key, value in remembered.items() if key not in _CORE and not info.is_reserved(key)}


def workflow(keys: KeyStore) -> Workflow:
    """Version 1 of the workflow."""

    def failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
        image_id = operation.args["image_id"]
        row = move_if(conn, "image", image_id, "upload_refused", host_id=None, attention=str(error))
        key_id = info.encryption(rows.properties(conn, [image_id])[image_id]).key_id
        if row is not None and operation.args["encrypted"] and key_id is not None:
            keys.delete(conn, key_id)
        move_if(conn, "volume", operation.resource_id, "uploaded")
        messages.record(conn, operation, error)

    return Workflow(
        kind="upload_volume",
        version=1,
        steps=(
            JobStep("store", _nothing, undo=_remove),
            JobStep("open", _open, undo=_close),
            JobStep("send", _send, retry_from="open", again_on=_TICKET_LOST),
            JobStep("close", _close),
            JobStep("commit", _commit),
        ),
        finished=_finished,
        failed=failed,
        attention=_attention,
    )


def _nothing(conn: Connection, operation: Operation) -> None:
    """Only the undo of this step does something."""


def _remove(conn: Connection, operation: Operation) -> JobCall | None:
    host_id = operation.args["host_id"]
    if enrolment.host(conn, host_id) is None:
        return None
    return JobCall(host_id, ImageDelete(image_id=operation.args["image_id"]))


def _open(conn: Connection, operation: Operation) -> JobCall:
    args = operation.args
    ticket = TransferOpen(
        image_id=args["image_id"],
        direction="write",
        peer=f"host:{volume_row(conn, operation).host_id}",
        lifetime_s=LIFETIME_S,
        max_bytes=args["max_bytes"],
    )
    return JobCall(args["host_id"], ticket)


def _close(conn: Connection, operation: Operation) -> JobCall | None:
    opened, host_id = operation.results.get("open"), operation.args["host_id"]
    if opened is None or enrolment.host(conn, host_id) is None:
        return None
    return JobCall(host_id, TransferClose(name=opened["name"]))


def _send(conn: Connection, operation: Operation) -> JobCall:
    row, opened = volume_row(conn, operation), operation.results["open"]
    store = enrolment.host(conn, operation.args["host_id"])
    if store is None:
        raise UnknownHost(host=operation.args["host_id"])
    transfer = TransferRef(host=store.name, address=store.address, port=opened["port"], name=opened["name"])
    job = ImageFromVolume(
        backend=backend_of(row),
        volume_id=row.id,
        image_id=operation.args["image_id"],
        transfer=transfer,
        compress=operation.args.get("container_format") == "compressed",
        disk_format=operation.args["disk_format"],
    )
    return JobCall(row.host_id, job)


def _commit(conn: Connection, operation: Operation) -> JobCall:
    args = operation.args
    declared = ImageCommit(
        image_id=args["image_id"],
        disk_format=args["disk_format"],
        container_format=args.get("container_format", "bare"),
        encrypted=args["encrypted"],
    )
    return JobCall(args["host_id"], declared)


def _finished(conn: Connection, operation: Operation) -> None:
    made = operation.results["commit"]
    sums = {item["algorithm"]: item["value"] for item in made["checksums"]}
    values: dict[str, Any] = {"size": made["size_bytes"], "virtual_size": made["virtual_size"] or None}
    if "sha256" in sums:
        values |= {"os_hash_algo": "sha256", "os_hash_value": sums["sha256"]}
    move(conn, "image", operation.args["image_id"], "uploaded", checksum=sums.get("md5"), attention=None, **values)
    move(conn, "volume", operation.resource_id, "uploaded")


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "image", operation.args["image_id"], "upload_refused", attention=reason)
    move_if(conn, "volume", operation.resource_id, "uploaded", attention=reason)
