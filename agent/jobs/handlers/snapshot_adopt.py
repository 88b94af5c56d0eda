"""Manage a snapshot that others made of a managed volume."""

from __future__ import annotations

from agent.backends.abilities import adopting
from agent.jobs.handlers.common import content_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import SnapshotAdopt
from agent.wire.results import SnapshotResult


async def run(context: Context, args: SnapshotAdopt) -> SnapshotResult:
    backend = adopting(context.services.backend(args.backend))
    await backend.adopt("snapshot", args.snapshot_id, args.source_name, args.device_bytes)
    return SnapshotResult(snapshot_id=args.snapshot_id, device_bytes=args.device_bytes)


KIND = Kind("snapshot.adopt", run, lambda args: Needs(exclusive=(content_lock(args.snapshot_id),)))
