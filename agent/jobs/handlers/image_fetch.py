"""An image fetched from a web server into the store, by the rules for addresses; what comes after is a commit."""

from __future__ import annotations

import asyncio
import os

from agent.jobs.handlers.common import metered
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import ImageFetch


async def run(context: Context, args: ImageFetch) -> None:
    """A run after a restart fetches it from the beginning."""
    from agent.images.checksum import verify_checksum
    from agent.images.web import Origin, download

    store, rules = context.services.image_store(), context.services.conversion_means().config.rules()
    url = context.secret("url").value().decode()
    fd = await asyncio.to_thread(store.receive, args.image_id)
    try:
        origin = Origin((url,), fixed=args.checksum is not None)
        await download(origin, fd, rules, metered(context, "fetch", 0))
        if args.checksum is not None:
            await verify_checksum(fd, args.checksum.algorithm, args.checksum.value)
    finally:
        await asyncio.to_thread(os.close, fd)


KIND = Kind(
    "image.fetch",
    run,
    lambda args: Needs(exclusive=(f"image-{args.image_id}",)),
    secrets=lambda args: frozenset({"url"}),
    lane="heavy",
)
