"""User messages over HTTP: what a failure tells, to whom, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.server.housekeeping import Housekeeper
from coordinator.server.settings import HousekeepingSection
from coordinator.state import messages
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.volumesite import Api, volume_api

NOWHERE = 1_000_000
ROOM = {"quota_set": {"gigabytes": -1}}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with volume_api(tmp_path) as api:
        assert (await api("PUT", f"/os-quota-sets/{P1}", who="root", json=ROOM)).status == 200
        yield api
    messages.keep_for(30 * 86400)


async def failed(api: Api) -> tuple[str, str]:
    """A volume that fits nowhere, and the id of the request."""
    made = await api("POST", "/volumes", json={"volume": {"size": NOWHERE}})
    assert made.status == 202, made.body
    await api.settled()
    return made.body["volume"]["id"], made.headers["x-openstack-request-id"]


async def told(api: Api, query: str = "", **more: Any) -> list[dict[str, Any]]:
    answer = await api("GET", f"/messages{query}", **more)
    assert answer.status == 200, answer.body
    return list(answer.body["messages"])


async def test_a_volume_that_fits_nowhere_tells_why(api: Api) -> None:
    volume, request = await failed(api)
    assert (await api("GET", f"/volumes/{volume}")).body["volume"]["status"] == "error"
    (message,) = await told(api, f"?resource_uuid={volume}")
    assert message["request_id"] == request
    assert (message["event_id"], message["message_level"]) == ("VOLUME_VOLUME_001_003", "ERROR")
    text = "schedule allocate volume:Could not find any available weighted backend."
    assert message["user_message"].startswith(text)
    assert "host-a" not in message["user_message"]
    assert (message["resource_type"], message["resource_uuid"]) == ("VOLUME", volume)
    assert message["guaranteed_until"] > message["created_at"]
    assert message["links"][0]["href"].endswith(f"/v3/messages/{message['id']}")


async def test_others_do_not_find_it_and_who_read_it_deletes_it(api: Api) -> None:
    await failed(api)
    (message,) = await told(api)
    path = f"/messages/{message['id']}"
    assert await told(api, who="other") == []
    for method in ("GET", "DELETE"):
        assert (await api(method, path, who="other")).status == 404
    assert (await api("GET", path)).body["message"] == message
    assert (await api("DELETE", path, who="looker")).status == 403
    assert (await api("DELETE", path)).status == 204
    assert [(await api(method, path)).status for method in ("GET", "DELETE")] == [404, 404]


async def test_filters_sorting_and_pages(api: Api) -> None:
    volumes = [(await failed(api))[0] for _ in range(3)]
    for query, count in ((f"?resource_uuid={volumes[0]}", 1), ("?resource_type=VOLUME", 3), ("?message_level=ERROR", 3),
                         ("?event_id=VOLUME_VOLUME_001_003", 3), ("?request_id=x", 0)):  # fmt: skip
        assert len(await told(api, query)) == count, query
    assert (await api("GET", "/messages?colour=red")).status == 400
    assert len(await told(api, "?colour=red", version=30)) == 3
    order = [item["resource_uuid"] for item in await told(api, "?sort=created_at:asc")]
    seen, path = [], "?sort=created_at:asc&limit=1"
    while path:
        answer = (await api("GET", f"/messages{path}")).body
        seen += [item["resource_uuid"] for item in answer["messages"]]
        path = answer.get("messages_links", [{"href": ""}])[0]["href"].partition("/messages")[2]
    assert seen == order == volumes
    assert "messages_links" not in (await api("GET", "/messages?limit=1", version=4)).body


async def test_it_goes_by_itself_when_its_time_is_over(api: Api) -> None:
    section = HousekeepingSection(messages_ttl_s=1.0, interval_s=0.2)
    keeper = asyncio.create_task(Housekeeper(api.here.db, section).run())
    await failed(api)
    async with asyncio.timeout(120):
        while await told(api):
            await asyncio.sleep(0.2)
    keeper.cancel()


async def test_what_was_promised_holds(api: Api) -> None:
    await failed(api)
    keeper = Housekeeper(api.here.db, HousekeepingSection(messages_ttl_s=0.001))
    await keeper.purge()
    assert len(await told(api)) == 1
    await failed(api)
    await asyncio.sleep(0.1)
    assert (await keeper.purge())["messages"] == 1
    assert len(await told(api)) == 1
