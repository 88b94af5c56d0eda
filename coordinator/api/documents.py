"""`GET /openapi.json`: made on first use, kept as bytes."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.answers import encoded
from coordinator.api.call import Call
from coordinator.api.route import Resource, get


def documents(resources: tuple[Resource, ...]) -> Resource:
    """The routes of the generated documents over `resources`."""
    made: list[bytes] = []

    async def show(call: Call) -> web.Response:
        if not made:
            from coordinator.api.openapi import document

            made.append(encoded(document((*resources, own))))
        return web.Response(body=made[0], content_type="application/json")

    own = Resource(
        name="documents",
        about="The description of this API for machines.",
        prefix="",
        routes=(get("/openapi.json", show, None, "Show the OpenAPI 3.1 document.", public=True),),
    )
    return own
