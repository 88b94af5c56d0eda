"""The bytes that arrived become an image of the store: synced, hashed, inspected by rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.jobs.handlers.common import metered
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import Checksum, ImageCommit
from agent.wire.results import ImageResult


async def run(context: Context, args: ImageCommit) -> ImageResult:
    from agent.images.inspect import Declared

    declared = Declared(args.disk_format, args.container_format, args.encrypted)
    store, port = context.services.image_store(), context.services.data_port
    if port is not None:
        # Bytes that come after the inspection would be bytes that nobody inspected.
        await port.close_writers(store.arriving_path(args.image_id))
    tell = metered(context, "digest", await store.arrived(args.image_id))
    loop = asyncio.get_running_loop()
    kept = await store.commit(args.image_id, declared, lambda done: _from_thread(loop, tell, done))
    return ImageResult(
        image_id=args.image_id,
        size_bytes=kept.size,
        checksums=(Checksum(algorithm="md5", value=kept.md5), Checksum(algorithm="sha256", value=kept.sha256)),
        detected_format=kept.inspection.format,
        virtual_size=kept.inspection.virtual_size,
    )


def _from_thread(loop: asyncio.AbstractEventLoop, tell: Callable[[int], None], done: int) -> None:
    loop.call_soon_threadsafe(tell, done)


KIND = Kind("image.commit", run, lambda args: Needs(exclusive=(f"image-{args.image_id}",)), lane="heavy")
