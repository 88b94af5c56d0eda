"""A volume from an image: fetched from whoever keeps it, verified, inspected by rule, converted, published."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from agent.backends.abilities import check_encryption, replacing, within_limits
from agent.backends.errors import NoSpace, VolumeExists
from agent.copying.errors import DestinationFull
from agent.copying.model import CopyOptions
from agent.jobs.handlers.common import format_of, metered, noted, one_volume, reporter, secret_of, steered, web_token
from agent.jobs.kinds import Checkpoint, Context, Kind
from agent.luks.model import device_bytes
from agent.wire.jobs import VolumeFromImage, VolumeReimage
from agent.wire.results import VolumeResult

if TYPE_CHECKING:
    from pathlib import Path

    from agent.images.resume import Resume
    from agent.images.signature import Verifier
    from agent.jobs.conversion import Conversion

FromImage = VolumeFromImage | VolumeReimage
_OVERHEAD = 64 << 20


async def run(context: Context, args: VolumeFromImage) -> VolumeResult:
    backend = context.services.backend(args.backend)
    size = device_bytes(args.size_bytes, format_of(args.encryption) if args.encryption else None)
    have = await backend.size(args.volume_id)
    if have is not None and have != size:
        raise VolumeExists(noun="Volume", id=args.volume_id, backend=args.backend, have=have, need=size)
    if have is None:
        if args.encryption is not None:
            check_encryption(backend, args.encryption.format)
        await fetched(context, args, size)
        await backend.publish(args.volume_id)
    return result(args, size)


def result(args: FromImage, size: int) -> VolumeResult:
    """Nothing that failed its signature comes as far as this."""
    verified = args.image.signature is not None
    return VolumeResult(volume_id=args.volume_id, device_bytes=size, usable_bytes=args.size_bytes, verified=verified)


async def fetched(context: Context, args: FromImage, size: int) -> None:
    """The image's content, whole and checked, beside where it is to be; raises NoSpace or why it was refused."""
    from agent.images.signature import verifier

    signed = verifier(args.image.signature) if args.image.signature is not None else None
    async with _image(context, args) as fd:
        await _verify(args, fd, signed)
        try:
            async with _clear(context, args, fd) as plain:
                await _fill(context, args, plain, size)
        except DestinationFull as full:
            raise NoSpace(backend=args.backend) from full


async def _place(context: Context, args: FromImage, size: int) -> Path:
    backend = context.services.backend(args.backend)
    work = steered(context, "zero", "zeroed")
    if isinstance(args, VolumeReimage):
        return await replacing(backend).prepare_anew(args.volume_id, size, work)
    return await backend.prepare(args.volume_id, size, work)


async def _fill(context: Context, args: FromImage, fd: int, size: int) -> None:
    from agent.images.inspect import Declared
    from agent.images.volume import Means, OpenedImage, Target, Watch, image_to_volume

    means, image = context.services.conversion_means(), args.image
    backend, options = context.services.backend(args.backend), CopyOptions(rate_limit=context.services.rate_limit)
    kept = await noted(context, backend, args.volume_id, size)
    path = await _place(context, args, size)
    await image_to_volume(
        OpenedImage(
            fd,
            Declared(image.disk_format, _container(args), image.encrypted),
            secret_of(context, "image") if image.encrypted else None,
        ),
        Target(
            path,
            args.size_bytes,
            format_of(args.encryption) if args.encryption else None,
            secret_of(context, "volume") if args.encryption else None,
        ),
        Means(
            limits=means.config.limits(),
            passphrase_iterations=means.config.passphrase_iterations,
        ),
        Watch(reporter(context), context.cancel, options=within_limits(options, backend)),
        _resume(context, kept),
    )


def _resume(context: Context, kept: Checkpoint) -> Resume:
    from agent.images.resume import Resume

    return Resume(
        lambda file, done: context.save({"file": file, "copied": done}),
        str(kept.get("file", "")),
        int(kept.get("copied", 0)),
    )


@contextlib.asynccontextmanager
async def _image(context: Context, args: FromImage) -> AsyncIterator[int]:
    """A descriptor of the image's bytes: of the store here, or fetched into the spool."""
    image = args.image
    if image.transfer is None and image.http is None:
        fd = await asyncio.to_thread(context.services.image_store().read, image.image_id)
        try:
            yield fd
        finally:
            await asyncio.to_thread(os.close, fd)
        return
    from agent.images.errors import SpoolFull
    from agent.images.spool import room_for

    means: Conversion = context.services.conversion_means()
    clear = args.encryption is not None and not image.encrypted
    async with room_for(image.size_bytes, clear=clear, disk=means.spool, memory=means.memory) as fd:
        try:
            await _fetch(context, args, fd)
        except OSError as failure:
            if failure.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise SpoolFull(free=0, wanted=image.size_bytes) from failure
        yield fd


def _container(args: FromImage) -> str:
    """The container format of what is converted: a compressed image has been unpacked by then."""
    return "bare" if args.image.container_format == "compressed" else args.image.container_format


@contextlib.asynccontextmanager
async def _clear(context: Context, args: FromImage, fd: int) -> AsyncIterator[int]:
    """The image itself: `fd`, or what it unpacks to, in the spool."""
    if args.image.container_format != "compressed":
        yield fd
        return
    from agent.images.spool import room_for
    from agent.images.unpack import room, unpack

    means = context.services.conversion_means()
    # What describes an image takes little beside its content.
    limit = args.size_bytes + _OVERHEAD
    clear = args.encryption is not None and not args.image.encrypted
    stored = (await asyncio.to_thread(os.fstat, fd)).st_size
    async with room_for(room(stored, limit), clear=clear, disk=means.spool, memory=means.memory) as to:
        loop, tell = asyncio.get_running_loop(), metered(context, "unpack", limit)

        def told(done: int) -> None:
            loop.call_soon_threadsafe(tell, done)

        await asyncio.to_thread(unpack, fd, to, limit, told, context.cancel.is_set)
        yield to


async def _fetch(context: Context, args: FromImage, fd: int) -> None:
    image, means = args.image, context.services.conversion_means()
    tell = metered(context, "fetch", image.size_bytes)
    if image.transfer is not None:
        await means.fetch(image.transfer, fd, image.size_bytes, tell)
        return
    from agent.images.web import Origin, download

    assert image.http is not None
    # An image of a service never changes once it is active, and what has a checksum is proven by it.
    fixed = image.http.site or image.checksum is not None
    token = web_token(context, image.http)
    origin = Origin(image.http.urls, token, image.http.site, size=image.size_bytes, fixed=fixed)
    await download(origin, fd, means.config.rules(), tell)


async def _verify(args: FromImage, fd: int, signed: Verifier | None) -> None:
    """The store's own bytes were hashed when they were committed; what came over the network is hashed here."""
    from agent.images.checksum import verify

    image = args.image
    sent = image.transfer is not None or image.http is not None
    checksum = (image.checksum.algorithm, image.checksum.value) if image.checksum is not None and sent else None
    await verify(fd, checksum, signed)


async def abandon(context: Context, args: FromImage) -> None:
    await context.services.backend(args.backend).discard(args.volume_id)


def secrets(args: FromImage) -> frozenset[str]:
    token = args.image.http is not None and args.image.http.token
    named = (("image", args.image.encrypted), ("volume", args.encryption), ("token", token))
    return frozenset(name for name, needed in named if needed)


KIND = Kind("volume.from_image", run, lambda args: one_volume(args.volume_id), abandon, secrets, lane="heavy")
