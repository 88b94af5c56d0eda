"""Let a snapshot go with its data."""

from __future__ import annotations

from agent.backends.abilities import adopting
from agent.jobs.handlers.common import content_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import SnapshotRelease
from agent.wire.results import ReleasedResult


async def run(context: Context, args: SnapshotRelease) -> ReleasedResult:
    backend = adopting(context.services.backend(args.backend))
    name = await backend.release("snapshot", args.snapshot_id, f"volume-{args.volume_id}")
    return ReleasedResult(name=name)


KIND = Kind("snapshot.release", run, lambda args: Needs(exclusive=(content_lock(args.snapshot_id),)))
