"""Give a volume the content of one of its snapshots again."""

from __future__ import annotations

from agent.backends.abilities import reverting
from agent.backends.base import Work
from agent.copying.model import CopyOptions
from agent.jobs.handlers.common import content_lock, refuse_if_in_use, reporter, volume_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import VolumeRevert
from agent.wire.results import VolumeResult


async def run(context: Context, args: VolumeRevert) -> VolumeResult:
    backend = context.services.backend(args.backend)
    await refuse_if_in_use(context, backend, args.volume_id)
    work = Work(
        options=CopyOptions(rate_limit=context.services.rate_limit, phase="revert"),
        progress=reporter(context),
        cancel=context.cancel,
    )
    size = await reverting(backend).revert(args.volume_id, args.snapshot_id, work)
    return VolumeResult(volume_id=args.volume_id, device_bytes=size, usable_bytes=args.size_bytes)


async def abandon(context: Context, args: VolumeRevert) -> None:
    """The volume keeps what it has."""
    await context.services.backend(args.backend).discard(args.volume_id)


def needs(args: VolumeRevert) -> Needs:
    return Needs(
        exclusive=(volume_lock(args.volume_id), content_lock(args.volume_id)), shared=(content_lock(args.snapshot_id),)
    )


KIND = Kind("volume.revert", run, needs, abandon, lane="heavy")
