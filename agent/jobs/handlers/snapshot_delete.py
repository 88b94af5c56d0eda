"""Remove a snapshot, whole or half made."""

from __future__ import annotations

from agent.jobs.handlers.common import content_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import SnapshotDelete


async def run(context: Context, args: SnapshotDelete) -> None:
    await context.services.backend(args.backend).delete_snapshot(args.snapshot_id)


KIND = Kind("snapshot.delete", run, lambda args: Needs(exclusive=(content_lock(args.snapshot_id),)))
