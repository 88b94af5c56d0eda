"""Manage a volume that others made, where it is and without a copy; an encrypted one only with a key that opens it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pydantic import ValidationError

from agent.backends.abilities import adopting
from agent.backends.errors import NotAdoptable
from agent.base.errors import BrickyardError
from agent.jobs.handlers.common import one_volume, secret_of
from agent.jobs.kinds import Context, Kind
from agent.luks.model import Secret, passphrase
from agent.wire.jobs import LuksFormat, VolumeAdopt
from agent.wire.results import AdoptedResult, VolumeResult


async def run(context: Context, args: VolumeAdopt) -> VolumeResult:
    backend = context.services.backend(args.backend)
    place = adopting(backend)
    secret = secret_of(context, "volume") if args.encrypted else None
    await place.adopt("volume", args.volume_id, args.source_name, args.device_bytes)
    if secret is None:
        return VolumeResult(volume_id=args.volume_id, device_bytes=args.device_bytes, usable_bytes=args.device_bytes)
    path = await backend.path(args.volume_id)
    try:
        usable, encryption = await asyncio.to_thread(_opened, path, secret)
    except (BrickyardError, ValidationError) as failure:
        # Only here can it be looked into, on every kind of back end; what does not fit goes back under its name.
        await place.release("volume", args.volume_id, name=args.source_name)
        reason = str(failure).rstrip(".") if isinstance(failure, BrickyardError) else "its key size is not known"
        raise NotAdoptable(name=args.source_name, backend=args.backend, reason=reason) from failure
    return AdoptedResult(
        volume_id=args.volume_id, device_bytes=args.device_bytes, usable_bytes=usable, encryption=encryption
    )


def _opened(path: Path, secret: Secret) -> tuple[int, LuksFormat]:
    """The bytes inside, and how they are encrypted. Raises WrongSecret, HeaderRefused. Blocking, takes seconds."""
    from agent.luks import header
    from agent.luks.unlock import unlock
    from agent.luks.window import whole_file

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        window = whole_file(fd)
        found = header.read(window)
        unlock(window, found, passphrase(secret), "the volume")
    finally:
        os.close(fd)
    said = found.details
    told = {"format": f"luks{said.version}", "cipher": said.cipher, "key_size": said.key_bytes * 8}
    return window.length - said.payload_offset, LuksFormat.model_validate(told)


def secrets(args: VolumeAdopt) -> frozenset[str]:
    return frozenset({"volume"} if args.encrypted else ())


KIND = Kind("volume.adopt", run, lambda args: one_volume(args.volume_id), secrets=secrets)
