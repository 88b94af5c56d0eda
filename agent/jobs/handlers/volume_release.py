"""Let a volume go with its data: it is not managed any more, and lies where its back end keeps such things."""

from __future__ import annotations

from functools import partial

from agent.backends.abilities import adopting
from agent.jobs.handlers.common import content_lock, forgotten, refuse_if_in_use, volume_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import VolumeRelease
from agent.wire.results import ReleasedResult


async def run(context: Context, args: VolumeRelease) -> ReleasedResult:
    backend = context.services.backend(args.backend)
    await refuse_if_in_use(context, backend, args.volume_id)
    name = await adopting(backend).release("volume", args.volume_id)
    await context.services.journal.write(partial(forgotten, volume_id=args.volume_id))
    return ReleasedResult(name=name)


KIND = Kind(
    "volume.release", run, lambda args: Needs(exclusive=(volume_lock(args.volume_id), content_lock(args.volume_id)))
)
