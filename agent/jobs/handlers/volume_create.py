"""An empty volume; with encryption its LUKS header is written before the volume gets its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.backends.abilities import check_encryption
from agent.backends.errors import NoSpace, VolumeExists
from agent.copying.errors import DestinationFull
from agent.jobs.handlers.common import format_of, one_volume, secret_of, steered
from agent.jobs.kinds import Context, Kind
from agent.luks.model import Format, device_bytes, iterations_for
from agent.wire.jobs import VolumeCreate
from agent.wire.results import VolumeResult

if TYPE_CHECKING:
    from agent.backends.base import Backend


async def run(context: Context, args: VolumeCreate) -> VolumeResult:
    backend = context.services.backend(args.backend)
    if args.encryption is None:
        size = args.size_bytes
        await backend.create(args.volume_id, size, steered(context, "zero", "zeroed"))
    else:
        fmt = format_of(args.encryption)
        size = device_bytes(args.size_bytes, fmt)
        await _encrypted(context, backend, args, fmt, size)
    return VolumeResult(volume_id=args.volume_id, device_bytes=size, usable_bytes=args.size_bytes)


async def _encrypted(context: Context, backend: Backend, args: VolumeCreate, fmt: Format, size: int) -> None:
    have = await backend.size(args.volume_id)
    if have is None:
        from agent.luks.blank import make_blank

        check_encryption(backend, fmt.format)
        secret = secret_of(context, "volume")
        path = await backend.prepare(args.volume_id, size, steered(context, "zero", "zeroed"))
        iterations = iterations_for(secret, None, context.services.passphrase_iterations)
        try:
            await make_blank(path, args.size_bytes, fmt, secret, iterations=iterations)
        except DestinationFull as full:
            raise NoSpace(backend=args.backend) from full
        await backend.publish(args.volume_id)
    elif have != size:
        raise VolumeExists(noun="Volume", id=args.volume_id, backend=args.backend, have=have, need=size)


async def abandon(context: Context, args: VolumeCreate) -> None:
    await context.services.backend(args.backend).discard(args.volume_id)


KIND = Kind(
    "volume.create",
    run,
    lambda args: one_volume(args.volume_id),
    abandon,
    lambda args: frozenset({"volume"} if args.encryption else ()),
)
