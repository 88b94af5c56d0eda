"""What the extra specs of a volume type have to keep to, whether they come with a new type or later."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.images.client import ImageClient
from coordinator.operations.upload_to_service import STORE

_CACHED_AND_SHARED = {"cacheable": "<is> True", "multiattach": "<is> True"}


async def check_store(call: Call, specs: Mapping[str, str]) -> None:
    """Ask the image service for the store that they name; raises NoSuchStore, GlanceAway."""
    client = call.services.find(ImageClient)
    if STORE in specs and client is not None:
        await client.check_store(specs[STORE])


def check_together(specs: Mapping[str, str]) -> None:
    """Raise BadRequest where what a type would have does not go together."""
    if specs.items() >= _CACHED_AND_SHARED.items():
        raise BadRequest(reason="cacheable cannot be set with multiattach.")
