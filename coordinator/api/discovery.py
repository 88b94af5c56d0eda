"""Version discovery (`/`, `/v3/`) and health."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from coordinator.api.call import Call, Reply
from coordinator.api.route import Resource, get
from coordinator.api.version import MAXIMUM, UPDATED

_MEDIA = [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}]


def discovery() -> Resource:
    """What needs no login."""
    return Resource(
        name="discovery",
        about="Which versions there are, and whether this coordinator is well.",
        prefix="",
        routes=(
            get("", _all_versions, None, "List the versions of the API.", status=300, public=True),
            get("/v3", _versions, None, "Show the version of the API.", public=True),
            get("/healthz", _ready, None, "Whether requests can be served (reads the database).", public=True),
            get("/healthcheck", _ready, None, "The same, under the name that it has elsewhere.", public=True),
            get("/healthz/live", _live, None, "Whether the process runs.", public=True),
        ),
    )


def _document(call: Call) -> dict[str, Any]:
    entry = {
        "id": "v3.0",
        "status": "CURRENT",
        "version": f"3.{MAXIMUM}",
        "min_version": "3.0",
        "updated": UPDATED,
        "links": [{"rel": "self", "href": f"{call.base_url}/v3/"}],
        "media-types": _MEDIA,
    }
    return {"versions": [entry]}


async def _all_versions(call: Call) -> dict[str, Any]:
    return _document(call)


async def _versions(call: Call) -> dict[str, Any]:
    return _document(call)


async def _live(call: Call) -> dict[str, Any]:
    return {"status": "ok"}


async def _ready(call: Call) -> Reply:
    try:
        await call.services.db.read(lambda conn: conn.execute(text("SELECT 1")).scalar())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not ready
        return Reply({"status": "unavailable", "reason": type(error).__name__}, status=503)
    return Reply({"status": "ok"})
