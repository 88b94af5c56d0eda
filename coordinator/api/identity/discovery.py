"""Which versions of Identity there are."""

from __future__ import annotations

from typing import Any

from coordinator.api.call import Call
from coordinator.api.route import Resource, get


def discovery() -> Resource:
    """Public."""
    return Resource(
        name="identity-versions",
        about="Versions of the identity service.",
        prefix="/identity",
        routes=(
            get("", _all, None, "List the versions of the identity service.", status=300, public=True),
            get("/v3", _one, None, "Show the version of the identity service.", public=True),
        ),
    )


def _version(call: Call) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{call.base_url}/identity/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


async def _all(call: Call) -> dict[str, Any]:
    return {"versions": {"values": [_version(call)]}}


async def _one(call: Call) -> dict[str, Any]:
    return {"version": _version(call)}
