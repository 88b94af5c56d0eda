"""The bytes of a volume, as they lie on its back end or as a qcow2, to the host that keeps images."""

from __future__ import annotations

import asyncio
import os

from agent.backends.abilities import within_limits
from agent.backends.base import CloneSource
from agent.copying.model import CopyOptions
from agent.copying.throttle import limited
from agent.jobs.handlers.common import content_lock, metered, refuse_if_in_use, still_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import ImageFromVolume
from agent.wire.results import SentResult


async def run(context: Context, args: ImageFromVolume) -> SentResult:
    """The store starts anew with every ticket, so a run after a restart sends all of it again."""
    from agent.images.sending import pieces, planned

    backend = context.services.backend(args.backend)
    await refuse_if_in_use(context, backend, args.volume_id)
    path = await backend.source_path(CloneSource("volume", args.volume_id))
    size = await backend.size(args.volume_id) or 0
    fd = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        plan = await planned(fd, size, args.disk_format)
        blocks = pieces(fd, size, metered(context, "send", size), compress=args.compress, plan=plan)
        limits = within_limits(CopyOptions(rate_limit=context.services.rate_limit), backend).throttle()
        sent = await context.services.sender()(args.transfer, limited(blocks, limits), size, lambda done: None)
    finally:
        await asyncio.to_thread(os.close, fd)
    return SentResult(image_id=args.image_id, size_bytes=sent, disk_format=args.disk_format)


KIND = Kind(
    "image.from_volume",
    run,
    lambda args: Needs(shared=(content_lock(args.volume_id), still_lock(args.volume_id))),
    lane="heavy",
)
