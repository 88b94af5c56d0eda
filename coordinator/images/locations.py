"""Volumes of this site as the data of a Glance's images: which those are, and how one is offered to it.

Newer Glances have calls for locations that only services may use; older ones, and those that do not know this site as
a service, show and take locations with the image itself where `show_multiple_locations` is set.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from agent.base.log import get_logger
from coordinator.images.errors import GlanceAway

log = get_logger(__name__)
PATCH = "application/openstack-images-v2.1-json-patch"
LISTED = "listed"
"""Under this name an answer that is a list is given."""
_VOLUME = re.compile(r"cinder://(?:[A-Za-z0-9_.-]+/)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_NOT_SERVED = (403, 404, 405)
_PATIENCE_S, _PAUSE_S = 300.0, 0.2


class Service(Protocol):
    """The Glance, asked as this site: status and answer."""

    async def __call__(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]: ...


async def volumes_of(found: Mapping[str, Any], service: Service | None) -> tuple[str, ...]:
    """Volumes that the locations of an image name, as a user was shown it; `service` may see what users may not."""
    if "locations" not in found and service is not None:
        path = f"/v2/images/{found['id']}"
        status, answer = await service("GET", f"{path}/locations")
        if status == 200:
            found = {**found, "locations": answer.get(LISTED)}
        else:
            _, found = await service("GET", path)
    places = [*_urls(found), str(found.get("direct_url"))]
    named = (_VOLUME.fullmatch(url) for url in places)
    return tuple(dict.fromkeys(match[1] for match in named if match is not None))


async def add(image_id: str, url: str, store: str, service: Service) -> bool:
    """Offer the image its data; whether it has them. The same again changes nothing. Raises GlanceAway."""
    path, value = f"/v2/images/{image_id}", {"url": url, "metadata": {"store": store} if store else {}}
    if await _has(path, url, service):
        return True
    status, said = await service("POST", f"{path}/locations", json={"url": url})
    if status in (202, 409):  # it is about to take it, perhaps since it was asked before
        return await _taken(path, url, service)
    if status in _NOT_SERVED:
        patch = json.dumps([{"op": "add", "path": "/locations/-", "value": value}])
        status, said = await service("PATCH", path, kind=PATCH, data=patch)
    if status != 200:
        log.info("an image is not taken as a volume", image=image_id, status=status, reason=str(said.get("message")))
    return status == 200


async def _taken(path: str, url: str, service: Service) -> bool:
    """How its own work on that ended."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        status, found = await service("GET", path)
        if status != 200 or found.get("status") in ("active", "killed", "deleted"):
            return status == 200 and await _has(path, url, service)
        if found.get("status") == "queued" and "os_glance_import_task" not in found:
            return False
        if time.monotonic() > deadline:
            raise GlanceAway(reason="it does not come to an end with a location")
        await asyncio.sleep(_PAUSE_S)


async def _has(path: str, url: str, service: Service) -> bool:
    status, answer = await service("GET", f"{path}/locations")
    if status in _NOT_SERVED:
        _, answer = await service("GET", path)
    return url in _urls(answer)


def _urls(found: Mapping[str, Any]) -> Iterator[str]:
    for each in found.get("locations") or found.get(LISTED) or ():
        if isinstance(each, Mapping):
            yield str(each.get("url"))
