"""The bytes of a volume, as they lie on its back end or as a qcow2, into an image of a Glance."""

from __future__ import annotations

import asyncio
import os

from agent.backends.base import CloneSource
from agent.jobs.handlers.common import content_lock, metered, refuse_if_in_use, still_lock, web_token
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import ImageUpload
from agent.wire.results import SentResult


async def run(context: Context, args: ImageUpload) -> SentResult:
    """A run after a restart sends all of it again, unless the service has it already."""
    from agent.images.sending import planned
    from agent.images.service import Service, Volume, upload

    backend = context.services.backend(args.backend)
    await refuse_if_in_use(context, backend, args.volume_id)
    path = await backend.source_path(CloneSource("volume", args.volume_id))
    size = await backend.size(args.volume_id) or 0
    service = Service(args.service.url, args.image_id, web_token(context, args.service), args.service.headers)
    rules = context.services.conversion_means().config.rules()
    fd = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        volume = Volume(fd, size, args.compress, await planned(fd, size, args.disk_format))
        sent = await upload(service, volume, rules, metered(context, "send", size))
    finally:
        await asyncio.to_thread(os.close, fd)
    return SentResult(image_id=args.image_id, size_bytes=sent, disk_format=args.disk_format)


KIND = Kind(
    "image.upload",
    run,
    lambda args: Needs(shared=(content_lock(args.volume_id), still_lock(args.volume_id))),
    secrets=lambda args: frozenset({"token"} if args.service.token else ()),
    lane="heavy",
)
