"""A volume with the content of another one or of a snapshot, on the same back end."""

from __future__ import annotations

import asyncio

from agent.backends.base import CloneSource
from agent.backends.errors import VolumeExists
from agent.base.errors import Invalid
from agent.base.faults import declare, fault_point
from agent.jobs.handlers.common import (
    content_lock,
    header_size,
    refuse_if_written,
    rekey,
    steered,
    still_lock,
    volume_lock,
)
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import VolumeClone
from agent.wire.results import VolumeResult

declare("agent.clone.copied")


async def run(context: Context, args: VolumeClone) -> VolumeResult:
    backend = context.services.backend(args.backend)
    source = _source(args)
    have = await backend.size(args.volume_id)
    header = 0
    if args.encrypted:
        # The header is copied with the content, so the new volume's header is as large as the source's.
        held = await backend.path(args.volume_id) if have is not None else await backend.source_path(source)
        header = await asyncio.to_thread(header_size, held)
    size = args.size_bytes + header
    if have is not None and have != size:
        raise VolumeExists(noun="Volume", id=args.volume_id, backend=args.backend, have=have, need=size)
    if have is None:
        if source.kind == "volume":
            await refuse_if_written(context, backend, source.id)
        await backend.clone(args.volume_id, size, source, steered(context, "clone", "copied"))
    if args.rekey:
        # A copy that a kill left with the source's key is finished here by the next run.
        fault_point("agent.clone.copied")
        await rekey(context, await backend.path(args.volume_id))
    return VolumeResult(volume_id=args.volume_id, device_bytes=size, usable_bytes=args.size_bytes, rekeyed=args.rekey)


def _source(args: VolumeClone) -> CloneSource:
    if (args.source_volume_id is None) == (args.source_snapshot_id is None):
        raise Invalid(reason="A clone needs one source: a volume or a snapshot.")
    if args.source_volume_id is not None:
        return CloneSource("volume", args.source_volume_id)
    assert args.source_snapshot_id is not None
    return CloneSource("snapshot", args.source_snapshot_id)


async def abandon(context: Context, args: VolumeClone) -> None:
    await context.services.backend(args.backend).discard(args.volume_id)


def needs(args: VolumeClone) -> Needs:
    source = args.source_volume_id or args.source_snapshot_id or ""
    still = (still_lock(source),) if args.source_volume_id else ()
    return Needs(exclusive=(volume_lock(args.volume_id),), shared=(content_lock(source), *still))


def secrets(args: VolumeClone) -> frozenset[str]:
    return frozenset({"source", "volume"} if args.rekey else ())


KIND = Kind("volume.clone", run, needs, abandon, secrets, lane="heavy")
