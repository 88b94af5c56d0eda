"""Keep a volume's content as it is now."""

from __future__ import annotations

from agent.backends.base import CloneSource, Work
from agent.backends.errors import VolumeNotFound
from agent.copying.model import CopyOptions
from agent.jobs.handlers.common import content_lock, refuse_if_written, reporter, still_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import SnapshotCreate
from agent.wire.results import SnapshotResult


async def run(context: Context, args: SnapshotCreate) -> SnapshotResult:
    backend = context.services.backend(args.backend)
    try:
        await backend.source_path(CloneSource("snapshot", args.snapshot_id))
    except VolumeNotFound:
        await refuse_if_written(context, backend, args.volume_id)
    # No checkpoint: a snapshot is of one moment, so a copy that was cut off begins anew.
    work = Work(
        options=CopyOptions(rate_limit=context.services.rate_limit, phase="snapshot"),
        progress=reporter(context),
        cancel=context.cancel,
    )
    size = await backend.snapshot(args.volume_id, args.snapshot_id, work)
    return SnapshotResult(snapshot_id=args.snapshot_id, device_bytes=size)


async def abandon(context: Context, args: SnapshotCreate) -> None:
    """A cancelled snapshot shall not be there, whole or half."""
    await context.services.backend(args.backend).delete_snapshot(args.snapshot_id)


KIND = Kind(
    "snapshot.create",
    run,
    lambda args: Needs(
        exclusive=(content_lock(args.snapshot_id),),
        shared=(content_lock(args.volume_id), still_lock(args.volume_id)),
    ),
    abandon,
)
