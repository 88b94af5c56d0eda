"""A new content for a volume that is there, from an image; until it is whole the old one stays."""

from __future__ import annotations

from agent.backends.abilities import replacing
from agent.backends.errors import VolumeNotFound
from agent.jobs.handlers.common import content_lock, format_of, refuse_if_in_use, volume_lock
from agent.jobs.handlers.volume_from_image import abandon, fetched, secrets
from agent.jobs.kinds import Context, Kind, Needs
from agent.luks.model import device_bytes
from agent.wire.jobs import VolumeReimage
from agent.wire.results import VolumeResult


async def run(context: Context, args: VolumeReimage) -> VolumeResult:
    backend = context.services.backend(args.backend)
    if await backend.size(args.volume_id) is None:
        raise VolumeNotFound(noun="Volume", id=args.volume_id, backend=args.backend)
    await refuse_if_in_use(context, backend, args.volume_id)
    size = device_bytes(args.size_bytes, format_of(args.encryption) if args.encryption else None)
    await fetched(context, args, size)
    await replacing(backend).replace(args.volume_id)
    return VolumeResult(volume_id=args.volume_id, device_bytes=size, usable_bytes=args.size_bytes)


def needs(args: VolumeReimage) -> Needs:
    return Needs(exclusive=(volume_lock(args.volume_id), content_lock(args.volume_id)))


KIND = Kind("volume.reimage", run, needs, abandon, secrets, lane="heavy")
