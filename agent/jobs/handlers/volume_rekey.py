"""Another secret for an encrypted volume, in its own header; the content stays, and so does the master key.

The new key is added before the old one is destroyed, so that a kill leaves one that opens. The same job with the two
secrets exchanged undoes it, however far it had come; nothing is left for `abandon` to do.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from agent.backends.errors import VolumeNotFound
from agent.jobs.handlers.common import content_lock, header_size, refuse_if_in_use, rekey, secret_of, volume_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.luks.model import Secret
from agent.wire.jobs import VolumeRekey
from agent.wire.results import VolumeResult


async def run(context: Context, args: VolumeRekey) -> VolumeResult:
    backend = context.services.backend(args.backend)
    size = await backend.size(args.volume_id)
    if size is None:
        raise VolumeNotFound(noun="Volume", id=args.volume_id, backend=args.backend)
    path = await backend.path(args.volume_id)
    if not await asyncio.to_thread(_opens_alone, path, secret_of(context, "volume")):
        await refuse_if_in_use(context, backend, args.volume_id)
        # A back end may have let go of the file to see who else has it open.
        path = await backend.path(args.volume_id)
        await rekey(context, path)
    inside = size - await asyncio.to_thread(header_size, path)
    return VolumeResult(volume_id=args.volume_id, device_bytes=size, usable_bytes=inside, rekeyed=True)


def _opens_alone(path: Path, secret: Secret) -> bool:
    from agent.luks import slots

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return slots.opens_alone(fd, secret)
    finally:
        os.close(fd)


def needs(args: VolumeRekey) -> Needs:
    return Needs(exclusive=(volume_lock(args.volume_id), content_lock(args.volume_id)))


KIND = Kind("volume.rekey", run, needs, secrets=lambda args: frozenset({"source", "volume"}))
