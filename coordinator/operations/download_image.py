"""download_image: a ticket on the store, its bytes to the user, the ticket closed. Changes nothing."""

from __future__ import annotations

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.wire.jobs import TransferOpen
from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.operations.accept import Requester, accept
from coordinator.operations.image_streams import ImageStreams
from coordinator.operations.upload_image import LIFETIME_S, close_ticket
from coordinator.operations.workflow import JobCall, JobStep, WaitStep, Workflow
from coordinator.state.operations import Operation


def accept_download(conn: Connection, requester: Requester, caller: Caller, image_id: str, *, stream: str) -> Operation:
    """Begin the download of an image by the transfer `stream`; raises NoSuchImage, NoImageData, ImageDeactivated."""
    row = catalog.show(conn, caller, image_id).row
    catalog.readable(caller, row)
    args = {"host_id": row.host_id, "stream": stream}
    return accept(conn, requester, kind="download_image", resource_type="image", resource_id=image_id, args=args)


def workflow(streams: ImageStreams) -> Workflow:
    """Version 1 of the workflow."""
    return Workflow(
        kind="download_image",
        version=1,
        steps=(
            JobStep("open", _open, undo=close_ticket),
            WaitStep("send", streams.carry),
            JobStep("close", close_ticket),
        ),
        finished=_nothing_changed,
        failed=_failed,
    )


def _open(conn: Connection, operation: Operation) -> JobCall:
    ticket = TransferOpen(
        image_id=operation.resource_id, direction="read", peer="coordinator", lifetime_s=LIFETIME_S
    )  # fmt: skip
    return JobCall(operation.args["host_id"], ticket)


def _nothing_changed(conn: Connection, operation: Operation) -> None:
    """The image is as it was."""


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    """The one who downloads was told; the image is as it was."""
