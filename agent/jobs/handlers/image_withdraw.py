"""An image of a Glance that was begun for an upload and will never be finished."""

from __future__ import annotations

from agent.jobs.handlers.common import web_token
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import ImageWithdraw


async def run(context: Context, args: ImageWithdraw) -> None:
    from agent.images.service import Service, withdraw

    service = Service(args.service.url, args.image_id, web_token(context, args.service))
    await withdraw(service, context.services.conversion_means().config.rules())


KIND = Kind(
    "image.withdraw",
    run,
    lambda args: Needs(exclusive=(f"image-{args.image_id}",)),
    secrets=lambda args: frozenset({"token"} if args.service.token else ()),
)
