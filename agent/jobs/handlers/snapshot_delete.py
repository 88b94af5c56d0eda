"""Remove a snapshot, whole or half made."""

from __future__ import annotations

from agent.backends.base import Backend, CloneSource, Work
from agent.jobs.handlers.common import content_lock, destroy_keys, steered
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import SnapshotDelete


async def run(context: Context, args: SnapshotDelete) -> None:
    await gone(context.services.backend(args.backend), args.snapshot_id, steered(context, "wipe", "wiped"))


async def gone(backend: Backend, snapshot_id: str, work: Work | None = None) -> None:
    """Its keys first, if it is that of an encrypted volume; once more is fine."""
    await destroy_keys(backend.source_path(CloneSource("snapshot", snapshot_id)))
    await backend.delete_snapshot(snapshot_id, work)


KIND = Kind("snapshot.delete", run, lambda args: Needs(exclusive=(content_lock(args.snapshot_id),)))
