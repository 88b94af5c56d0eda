"""A new content for a volume that is there, from an image; until it is whole the old one stays."""

from __future__ import annotations

from agent.backends.abilities import replacing
from agent.backends.errors import VolumeNotFound
from agent.base.faults import declare, fault_point
from agent.jobs.handlers import volume_from_image
from agent.jobs.handlers.common import content_lock, format_of, refuse_if_in_use, volume_lock
from agent.jobs.handlers.switching import DECIDED, is_between, switch
from agent.jobs.kinds import Context, Kind, Needs
from agent.luks.model import device_bytes
from agent.wire.jobs import VolumeReimage
from agent.wire.results import VolumeResult

declare("agent.reimage.copied", "agent.reimage.decided", "agent.reimage.replaced")


async def run(context: Context, args: VolumeReimage) -> VolumeResult:
    backend = context.services.backend(args.backend)
    place = replacing(backend)
    if not _decided(context):
        if await is_between(backend, args.volume_id):
            await switch(place, args.volume_id)  # of an earlier job, which is done with that
        if await backend.size(args.volume_id) is None:
            raise VolumeNotFound(noun="Volume", id=args.volume_id, backend=args.backend)
        await refuse_if_in_use(context, backend, args.volume_id)
        await volume_from_image.fetched(context, args, _size(args))
        fault_point("agent.reimage.copied")
        await context.save({DECIDED: True})
        fault_point("agent.reimage.decided")
    await switch(place, args.volume_id)
    fault_point("agent.reimage.replaced")
    return volume_from_image.result(args, _size(args))


async def abandon(context: Context, args: VolumeReimage) -> VolumeResult | None:
    """Drop the copy; where it was decided already, finish instead."""
    backend = context.services.backend(args.backend)
    decided = _decided(context)
    if decided or await is_between(backend, args.volume_id):
        await switch(replacing(backend), args.volume_id)
        return volume_from_image.result(args, _size(args)) if decided else None
    await backend.discard(args.volume_id)
    return None


def _decided(context: Context) -> bool:
    return bool((context.checkpoint or {}).get(DECIDED))


def _size(args: VolumeReimage) -> int:
    return device_bytes(args.size_bytes, format_of(args.encryption) if args.encryption else None)


def needs(args: VolumeReimage) -> Needs:
    return Needs(exclusive=(volume_lock(args.volume_id), content_lock(args.volume_id)))


KIND = Kind("volume.reimage", run, needs, abandon, volume_from_image.secrets, lane="heavy")
