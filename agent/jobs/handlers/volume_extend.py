"""A larger volume; devices that this host has on it follow."""

from __future__ import annotations

import asyncio

from agent.backends.errors import VolumeNotFound
from agent.jobs import desired
from agent.jobs.handlers.common import header_size, one_volume, steered
from agent.jobs.kinds import Context, Kind
from agent.wire.jobs import VolumeExtend
from agent.wire.results import VolumeResult


async def run(context: Context, args: VolumeExtend) -> VolumeResult:
    backend = context.services.backend(args.backend)
    have = await backend.size(args.volume_id)
    if have is None:
        raise VolumeNotFound(noun="Volume", id=args.volume_id, backend=args.backend)
    header = await asyncio.to_thread(header_size, await backend.path(args.volume_id)) if args.encrypted else 0
    size = args.size_bytes + header
    if have < size:
        await backend.extend(args.volume_id, size, steered(context, "zero", "zeroed"))
    size = max(have, size)
    for target in context.services.targets.values():
        await target.grow(args.volume_id, size)
    await _let_devices_follow(context, args.volume_id, size)
    return VolumeResult(volume_id=args.volume_id, device_bytes=size, usable_bytes=size - header)


async def _let_devices_follow(context: Context, volume_id: str, size: int) -> None:
    rows = await context.services.journal.read(lambda db: desired.of_volume(db, volume_id))
    attached = [
        row for row in rows if row.device and row.connection is None and row.boot_id == context.services.boot_id
    ]
    if not attached:
        return
    from agent.connectors import local
    from agent.jobs.handlers.common import secret_of
    from agent.luks.model import passphrase

    key = passphrase(secret_of(context, "volume")) if "volume" in context.secrets else None
    for row in attached:
        await local.resize(row.attachment_id, size, key)


KIND = Kind("volume.extend", run, lambda args: one_volume(args.volume_id))
