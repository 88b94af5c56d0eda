"""import_image: the host that keeps images fetches one from a web server itself; inspected and hashed like an upload.

The address may hold what only its owner should know, so it is sealed, and forgotten when the work has ended.
"""

from __future__ import annotations

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.wire.jobs import Checksum, ImageFetch, WireSecret
from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.images.errors import ImageInvalid, NoImageStore
from coordinator.keys.store import KeyStore
from coordinator.operations import upload_image
from coordinator.operations.accept import Requester, accept
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.state import images as rows
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.transition import move


def accept_import(
    conn: Connection,
    requester: Requester,
    keys: KeyStore,
    caller: Caller,
    image_id: str,
    *,
    url: str,
    checksum: tuple[str, str] | None,
) -> Operation:
    """Begin to fetch the data of a queued image.

    Raises NoSuchImage, ImageNotYours, ImageInvalid (no formats), TransitionRefused (409), NoImageStore.
    """
    row = catalog.owned(conn, caller, image_id).row
    if not row.disk_format or not row.container_format:
        raise ImageInvalid(reason="disk_format and container_format must be set before the data are imported")
    host_id = rows.store_host(conn)
    if host_id is None:
        raise NoImageStore
    try:
        row = move(conn, "image", image_id, "upload", host_id=host_id)
    except TransitionRefused as refused:
        refused.status = 409
        raise
    keys.put_of_site(conn, _name(image_id), url.encode())
    args = {
        "host_id": host_id,
        "disk_format": row.disk_format,
        "container_format": row.container_format,
        "encrypted": catalog.describe(catalog.show(conn, caller, image_id)).encrypted,
        "checksum": dict(zip(("algorithm", "value"), checksum, strict=True)) if checksum is not None else None,
    }
    return accept(conn, requester, kind="import_image", resource_type="image", resource_id=image_id, args=args)


def workflow(keys: KeyStore) -> Workflow:
    """Version 1 of the workflow."""

    def fetch(conn: Connection, operation: Operation) -> JobCall:
        checksum, url = operation.args["checksum"], keys.of_site(conn, _name(operation.resource_id))
        job = ImageFetch(
            image_id=operation.resource_id, checksum=Checksum(**checksum) if checksum is not None else None
        )
        return JobCall(operation.args["host_id"], job, {"url": WireSecret.of("opaque", url or b"")})

    def finished(conn: Connection, operation: Operation) -> None:
        keys.drop_of_site(conn, _name(operation.resource_id))
        upload_image.finished(conn, operation)

    def failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
        keys.drop_of_site(conn, _name(operation.resource_id))
        upload_image.failed(conn, operation, error)

    def attention(conn: Connection, operation: Operation, reason: str) -> None:
        keys.drop_of_site(conn, _name(operation.resource_id))
        upload_image.attention(conn, operation, reason)

    return Workflow(
        kind="import_image",
        version=1,
        steps=(
            JobStep("store", upload_image.nothing, undo=upload_image.remove),
            JobStep("fetch", fetch),
            JobStep("commit", upload_image.commit),
        ),
        finished=finished,
        failed=failed,
        attention=attention,
    )


def _name(image_id: str) -> str:
    return f"import {image_id}"
