"""Remove an image and what arrived of it."""

from __future__ import annotations

from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import ImageDelete


async def run(context: Context, args: ImageDelete) -> None:
    await context.services.image_store().delete(args.image_id)


KIND = Kind("image.delete", run, lambda args: Needs(exclusive=(f"image-{args.image_id}",)))
