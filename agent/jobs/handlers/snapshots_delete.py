"""Remove several snapshots of one volume; what could be removed is told apart from what could not."""

from __future__ import annotations

from agent.base.errors import BrickyardError
from agent.jobs.handlers.common import content_lock
from agent.jobs.handlers.snapshot_delete import gone
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import SnapshotsDelete
from agent.wire.results import SnapshotsResult


async def run(context: Context, args: SnapshotsDelete) -> SnapshotsResult:
    backend = context.services.backend(args.backend)
    deleted: list[str] = []
    failed: dict[str, str] = {}
    for snapshot_id in args.snapshot_ids:
        try:
            await gone(backend, snapshot_id)
            deleted.append(snapshot_id)
        except BrickyardError as error:
            failed[snapshot_id] = str(error)
    return SnapshotsResult(deleted=tuple(deleted), failed=failed)


def needs(args: SnapshotsDelete) -> Needs:
    return Needs(exclusive=tuple(content_lock(snapshot_id) for snapshot_id in args.snapshot_ids))


KIND = Kind("snapshots.delete", run, needs)
