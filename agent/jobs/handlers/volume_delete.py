"""Remove a volume, whole or half made; never one that this host still has attached."""

from __future__ import annotations

from functools import partial

from agent.jobs.handlers.common import content_lock, destroy_keys, forgotten, refuse_if_in_use, steered, volume_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import VolumeDelete


async def run(context: Context, args: VolumeDelete) -> None:
    backend = context.services.backend(args.backend)
    await refuse_if_in_use(context, backend, args.volume_id)
    if await backend.size(args.volume_id) is not None:
        await destroy_keys(backend.path(args.volume_id))
    await backend.delete(args.volume_id, steered(context, "wipe", "wiped"))
    await context.services.journal.write(partial(forgotten, volume_id=args.volume_id))


KIND = Kind(
    "volume.delete", run, lambda args: Needs(exclusive=(volume_lock(args.volume_id), content_lock(args.volume_id)))
)
