"""A volume in another encryption, or in none: a second copy is made beside it, and then put in its place.

Once the copy is whole and that is noted, the job goes forward only: whoever cancels it after that is told that it
was done. So the coordinator always knows which of two keys opens the volume.
"""

from __future__ import annotations

import asyncio

from agent.backends.abilities import Replacing, check_encryption, replacing, within_limits
from agent.backends.base import Backend, CloneSource
from agent.backends.errors import NoSpace, VolumeNotFound
from agent.base.faults import declare, fault_point
from agent.copying.errors import DestinationFull
from agent.copying.model import CopyOptions
from agent.jobs.handlers.common import (
    content_lock,
    format_of,
    noted,
    refuse_if_in_use,
    reporter,
    secret_of,
    steered,
    volume_lock,
)
from agent.jobs.handlers.switching import DECIDED, is_between, switch
from agent.jobs.kinds import Context, Kind, Needs
from agent.luks.model import device_bytes, iterations_for
from agent.wire.jobs import VolumeRecrypt
from agent.wire.results import VolumeResult

declare("agent.recrypt.copied", "agent.recrypt.decided", "agent.recrypt.replaced")


async def run(context: Context, args: VolumeRecrypt) -> VolumeResult:
    backend = context.services.backend(args.backend)
    place = replacing(backend)
    if not await _decided(context, args, backend):
        if await _is_done(context, args, backend):
            return _result(args)
        if args.encryption is not None:
            check_encryption(backend, args.encryption.format)
        await refuse_if_in_use(context, backend, args.volume_id)
        await _copied(context, args, backend, place)
        fault_point("agent.recrypt.copied")
        await context.save({DECIDED: True})
        fault_point("agent.recrypt.decided")
    return await _switched(args, place)


async def _switched(args: VolumeRecrypt, place: Replacing) -> VolumeResult:
    await switch(place, args.volume_id)
    fault_point("agent.recrypt.replaced")
    return _result(args)


async def _decided(context: Context, args: VolumeRecrypt, backend: Backend) -> bool:
    """Whether all that is left is to put the copy in the volume's place.

    A back end may be between the two: then there is a copy alone, under an earlier attempt perhaps.
    """
    if (context.checkpoint or {}).get(DECIDED) or await is_between(backend, args.volume_id):
        return True
    if await backend.size(args.volume_id) is None:
        raise VolumeNotFound(noun="Volume", id=args.volume_id, backend=args.backend)
    return False


async def _is_done(context: Context, args: VolumeRecrypt, backend: Backend) -> bool:
    """Whether an earlier attempt has put the copy in place: a clear one is smaller than the encrypted one was."""
    if args.encryption is None:
        return await backend.size(args.volume_id) == args.size_bytes
    from agent.luks.recrypt import is_of

    path, fmt = await backend.path(args.volume_id), format_of(args.encryption)
    return await asyncio.to_thread(is_of, path, fmt, secret_of(context, "volume"))


async def _copied(context: Context, args: VolumeRecrypt, backend: Backend, place: Replacing) -> None:
    from agent.luks.recrypt import Steering, Target, recrypt

    fmt = format_of(args.encryption) if args.encryption else None
    secret = secret_of(context, "volume") if fmt else None
    size = device_bytes(args.size_bytes, fmt)
    kept = await noted(context, backend, args.volume_id, size)
    if "mark" not in kept:
        # Of another attempt, with another key perhaps.
        await backend.discard(args.volume_id)
    path = await place.prepare_anew(args.volume_id, size, steered(context, "zero", "zeroed"))
    iterations = iterations_for(secret, None, context.services.passphrase_iterations) if secret else 0
    how = Steering(
        within_limits(CopyOptions(rate_limit=context.services.rate_limit, phase="recrypt"), backend),
        reporter(context),
        context.cancel,
        lambda mark, done: context.save({"mark": mark, "done": done}),
        str(kept.get("mark", "")),
        int(kept.get("done", 0)),
    )
    try:
        source = await backend.source_path(CloneSource("volume", args.volume_id))
        old = secret_of(context, "source") if args.encrypted else None
        await recrypt(source, old, Target(path, args.size_bytes, fmt, secret, iterations), how)
    except DestinationFull as full:
        raise NoSpace(backend=args.backend) from full


def _result(args: VolumeRecrypt) -> VolumeResult:
    fmt = format_of(args.encryption) if args.encryption else None
    return VolumeResult(
        volume_id=args.volume_id,
        device_bytes=device_bytes(args.size_bytes, fmt),
        usable_bytes=args.size_bytes,
        rekeyed=fmt is not None,
    )


async def abandon(context: Context, args: VolumeRecrypt) -> VolumeResult | None:
    """Drop the copy; where it was decided already, finish instead."""
    backend = context.services.backend(args.backend)
    if not await _decided(context, args, backend):
        await backend.discard(args.volume_id)
        return None
    return await _switched(args, replacing(backend))


def needs(args: VolumeRecrypt) -> Needs:
    return Needs(exclusive=(volume_lock(args.volume_id), content_lock(args.volume_id)))


def secrets(args: VolumeRecrypt) -> frozenset[str]:
    return frozenset(name for name, needed in (("source", args.encrypted), ("volume", args.encryption)) if needed)


KIND = Kind("volume.recrypt", run, needs, abandon, secrets, lane="heavy")
