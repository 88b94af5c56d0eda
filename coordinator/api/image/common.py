"""What the calls about images share: for whom they work, and reading bodies that are no plain objects."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from coordinator.api.bodies import received
from coordinator.api.call import Call
from coordinator.api.errors import MalformedBody, UnsupportedMedia
from coordinator.images.catalog import Caller
from coordinator.operations.accept import Requester
from coordinator.operations.engine import Engine


def caller_of(call: Call) -> Caller:
    context = call.context
    return Caller(context.project_id, context.is_admin, call.may("brickyard:images:publish"))


def requester_of(call: Call) -> Requester:
    context = call.context
    return Requester(context.project_id, context.user_id, context.request_id, call.services.get(Engine).owner)


async def json_of(call: Call, media: frozenset[str]) -> Any:
    """The JSON body of a request, of a type in `media`; raises UnsupportedMedia, BodyTooLarge, MalformedBody."""
    request, limit = call.request, call.services.settings.max_body
    if request.content_type not in media:
        raise UnsupportedMedia(type=request.content_type)
    raw = await received(request, limit)
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise MalformedBody(reason="cannot understand JSON") from None
