"""`GET /openapi.json`: made on first use, kept as bytes; at one microversion where that is asked for."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.answers import encoded
from coordinator.api.call import Call
from coordinator.api.route import Resource, get
from coordinator.api.version import negotiate


def documents(resources: tuple[Resource, ...]) -> Resource:
    """The routes of the generated documents over `resources`."""
    made: list[bytes] = []

    async def show(call: Call) -> web.Response:
        if not made:
            from coordinator.api.openapi import document

            made.append(encoded(document((*resources, own))))
        wanted = call.query.get("version")
        body = made[0] if wanted is None else _at(made[0], negotiate([f"volume {wanted}"]).volume)
        return web.Response(body=body, content_type="application/json")

    own = Resource(
        name="documents",
        about="The description of this API for machines.",
        prefix="",
        routes=(
            get("/openapi.json", show, None, "Show the OpenAPI 3.1 document; `version=3.N`: with what there is at that "
                "microversion.", public=True, query=("version",)),
        ),
    )  # fmt: skip
    return own


def _at(whole: bytes, minor: int) -> bytes:
    import orjson

    from coordinator.api.openapi_at import at

    return encoded(at(orjson.loads(whole), minor))
