"""clear_returned: take from a host that came back what the site ended while it was evicted, of one volume or image."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from agent.base.errors import BrickyardError, Permanent
from agent.wire.jobs import AttachmentApply, ExportApply, ImageDelete, SnapshotsDelete, VolumeDelete
from coordinator.keys.store import KeyStore
from coordinator.operations.exports import AGAIN_ON, export_call
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, Workflow
from coordinator.state import attachments, evictions, volumes
from coordinator.state import images as image_rows
from coordinator.state.operations import Operation

KIND = "clear_returned"


class StillThere(Permanent):
    code = "host.still-there"
    status = 409
    sentence = "Host {host} could not remove {count} snapshots of volume {id}: {reasons}."
    hint = "Mend that on the host; it is tried again every ten minutes."


def workflow(keys: KeyStore) -> Workflow:
    """Version 1: what uses the data goes before them."""

    def unexport(conn: Connection, operation: Operation) -> JobCall | None:
        return _unexport(conn, keys, operation)

    return Workflow(
        kind=KIND,
        version=1,
        steps=(
            JobStep("detach", _detach, pinned=True, again_on=AGAIN_ON, gone_is_done=True),
            JobStep("unexport", unexport, pinned=True, again_on=AGAIN_ON, gone_is_done=True),
            JobStep("snapshots", _snapshots, gone_is_done=True),
            LocalStep("check", _check),
            JobStep("remove", _remove, gone_is_done=True),
        ),
        finished=_finished,
        failed=_failed,
    )


def _detach(conn: Connection, operation: Operation) -> JobCall | None:
    """Nothing where it was attached there anew meanwhile: that set has replaced the old one."""
    args, volume_id = operation.args, operation.resource_id
    if not args["attachments"] or attachments.of_host(conn, volume_id, args["host_id"]):
        return None
    (generation,) = attachments.next_generations(conn, volume_id, args["host_id"], 1)
    job = AttachmentApply(backend=args["backend"], volume_id=volume_id, generation=generation)
    return JobCall(args["host_id"], job)


def _unexport(conn: Connection, keys: KeyStore, operation: Operation) -> JobCall | None:
    """Of a volume that lies there: the set that the rows want; of any other: nobody."""
    args, volume_id = operation.args, operation.resource_id
    if not args["exports"]:
        return None
    row = volumes.with_any_state(conn, volume_id)
    if row is not None and not row.deleted and row.host_id == args["host_id"]:
        return export_call(conn, keys, row)
    (generation,) = attachments.next_generations(conn, volume_id, args["host_id"], 1)
    job = ExportApply(backend=args["backend"], volume_id=volume_id, generation=generation)
    return JobCall(args["host_id"], job)


def _snapshots(conn: Connection, operation: Operation) -> JobCall | None:
    args = operation.args
    if not args["snapshots"]:
        return None
    return JobCall(args["host_id"], SnapshotsDelete(backend=args["backend"], snapshot_ids=args["snapshots"]))


def _check(conn: Connection, operation: Operation) -> None:
    failed: dict[str, str] = (operation.results.get("snapshots") or {}).get("failed", {})
    if failed:
        raise StillThere(
            host=operation.args["host_id"],
            count=len(failed),
            id=operation.resource_id,
            reasons="; ".join(failed.values()),
        )


def _remove(conn: Connection, operation: Operation) -> JobCall | None:
    """The row is looked at again: data of one that lives are never taken."""
    args, wanted = operation.args, operation.resource_id
    if not args["data"]:
        return None
    if operation.resource_type == "image":
        image = image_rows.with_any_state(conn, wanted)
        gone = image is not None and image.deleted
        return JobCall(args["host_id"], ImageDelete(image_id=wanted)) if gone else None
    row = volumes.with_any_state(conn, wanted)
    if row is None or not row.deleted or row.cluster_name is not None:
        return None
    return JobCall(args["host_id"], VolumeDelete(backend=args["backend"], volume_id=wanted))


def _finished(conn: Connection, operation: Operation) -> None:
    counts: dict[str, Any] = operation.args["counts"]
    evictions.took(conn, operation.args["eviction_id"], counts)


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    """What could not be taken stays there, and in the host's issue."""
