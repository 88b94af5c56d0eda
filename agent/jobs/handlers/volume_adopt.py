"""Manage a volume that others made, where it is and without a copy."""

from __future__ import annotations

from agent.backends.abilities import adopting
from agent.jobs.handlers.common import one_volume
from agent.jobs.kinds import Context, Kind
from agent.wire.jobs import VolumeAdopt
from agent.wire.results import VolumeResult


async def run(context: Context, args: VolumeAdopt) -> VolumeResult:
    backend = adopting(context.services.backend(args.backend))
    await backend.adopt("volume", args.volume_id, args.source_name, args.device_bytes)
    return VolumeResult(volume_id=args.volume_id, device_bytes=args.device_bytes, usable_bytes=args.device_bytes)


KIND = Kind("volume.adopt", run, lambda args: one_volume(args.volume_id))
