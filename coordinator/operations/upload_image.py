"""upload_image: a ticket on the store, the user's bytes, inspection and hashes by the store; or nothing at all.

The image is `saving` while this runs and ends `active`; `queued` again when the bytes did not arrive; `killed` when
the store refused them by rule. The undo of the first step removes whatever arrived.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.wire.jobs import ImageCommit, ImageDelete, TransferClose, TransferOpen
from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.images.errors import ImageInvalid, NoImageStore
from coordinator.operations.accept import Requester, accept
from coordinator.operations.errors import Cancelled, UnknownHost, WaitedTooLong
from coordinator.operations.image_streams import ImageStreams
from coordinator.operations.workflow import JobCall, JobStep, WaitStep, Workflow
from coordinator.state import enrolment, messages
from coordinator.state import images as rows
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if

LIFETIME_S = 24 * 3600


def accept_upload(
    conn: Connection, requester: Requester, caller: Caller, image_id: str, *, stream: str, size: int | None
) -> Operation:
    """Begin the upload of `size` bytes (None: not known before) by the transfer `stream`.

    Raises NoSuchImage, ImageNotYours, ImageInvalid (no formats), TransitionRefused (409), NoImageStore.
    """
    row = catalog.owned(conn, caller, image_id).row
    if not row.disk_format or not row.container_format:
        raise ImageInvalid(reason="disk_format and container_format must be set before the data are uploaded")
    host_id = rows.store_host(conn)
    if host_id is None:
        raise NoImageStore
    try:
        row = move(conn, "image", image_id, "upload", host_id=host_id)
    except TransitionRefused as refused:
        refused.status = 409
        raise
    described = catalog.describe(catalog.show(conn, caller, image_id))
    args = {
        "host_id": host_id,
        "stream": stream,
        "max_bytes": size,
        "disk_format": row.disk_format,
        "container_format": row.container_format,
        "encrypted": described.encrypted,
    }
    return accept(conn, requester, kind="upload_image", resource_type="image", resource_id=image_id, args=args)


def workflow(streams: ImageStreams) -> Workflow:
    """Version 1 of the workflow."""
    return Workflow(
        kind="upload_image",
        version=1,
        steps=(
            JobStep("store", nothing, undo=remove),
            JobStep("open", _open, undo=close_ticket),
            WaitStep("receive", streams.carry),
            JobStep("close", close_ticket),
            JobStep("commit", commit),
        ),
        finished=finished,
        failed=failed,
        attention=attention,
    )


def close_ticket(conn: Connection, operation: Operation) -> JobCall | None:
    """End the ticket of an upload or download, where one was opened."""
    opened = operation.results.get("open")
    host_id = operation.args["host_id"]
    if opened is None or enrolment.host(conn, host_id) is None:
        return None
    return JobCall(host_id, TransferClose(name=opened["name"]))


def nothing(conn: Connection, operation: Operation) -> None:
    """Only the undo of this step does something."""


def remove(conn: Connection, operation: Operation) -> JobCall | None:
    """Whatever arrived goes away."""
    host_id = operation.args["host_id"]
    if enrolment.host(conn, host_id) is None:
        return None
    return JobCall(host_id, ImageDelete(image_id=operation.resource_id))


def _open(conn: Connection, operation: Operation) -> JobCall:
    args = operation.args
    ticket = TransferOpen(
        image_id=operation.resource_id, direction="write", peer="coordinator", lifetime_s=LIFETIME_S,
        max_bytes=args["max_bytes"],
    )  # fmt: skip
    return JobCall(args["host_id"], ticket)


def commit(conn: Connection, operation: Operation) -> JobCall:
    """The bytes that arrived become the image, if they keep the rules."""
    args = operation.args
    declared = ImageCommit(
        image_id=operation.resource_id, disk_format=args["disk_format"], container_format=args["container_format"],
        encrypted=args["encrypted"],
    )  # fmt: skip
    return JobCall(args["host_id"], declared)


def finished(conn: Connection, operation: Operation) -> None:
    """The image is active."""
    made = operation.results["commit"]
    sums = {item["algorithm"]: item["value"] for item in made["checksums"]}
    values: dict[str, Any] = {"size": made["size_bytes"], "virtual_size": made["virtual_size"] or None}
    if "sha256" in sums:
        values |= {"os_hash_algo": "sha256", "os_hash_value": sums["sha256"]}
    move(conn, "image", operation.resource_id, "uploaded", checksum=sums.get("md5"), attention=None, **values)


def failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    """Without data again, or refused for good."""
    by_rule = operation.step == "commit" and not isinstance(error, (Cancelled, UnknownHost, WaitedTooLong))
    event = "upload_refused" if by_rule else "upload_lost"
    move_if(conn, "image", operation.resource_id, event, host_id=None, attention=str(error))
    if not isinstance(error, Cancelled):
        messages.record(conn, operation, error)


def attention(conn: Connection, operation: Operation, reason: str) -> None:
    """Nobody knows what lies on the store."""
    move_if(conn, "image", operation.resource_id, "upload_refused", attention=reason)
