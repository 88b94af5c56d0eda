"""Scheduler hints over HTTP, in the place where the clients put them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api


async def _create(api: Api, who: str = "worker", **hints: Any) -> Answered:
    return await api("POST", "/volumes", who=who, json={"volume": {"size": 1}, "OS-SCH-HNT:scheduler_hints": hints})


async def _ended(api: Api, made: Answered) -> tuple[str, str | None]:
    """Status, and the back end as the administrator sees it."""
    assert made.status == 202, made.body
    await api.settled()
    seen = await api("GET", f"/volumes/{made.body['volume']['id']}?all_tenants=1", who="root")
    host = seen.body["volume"]["os-vol-host-attr:host"]
    return seen.body["volume"]["status"], host.split("@")[0] if host else None


async def test_beside_and_away_from_another_volume(tmp_path: Path) -> None:
    async with volume_api(tmp_path, ("host-a", "host-b")) as api:
        first = await api.volume()
        _, home = await _ended(api, Answered(202, {"volume": first}, {}))
        other = ({"host-a", "host-b"} - {home}).pop()
        for _ in range(3):
            assert await _ended(api, await _create(api, same_host=first["id"])) == ("available", home)
            assert await _ended(api, await _create(api, different_host=[first["id"]])) == ("available", other)


async def test_no_place_is_told(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        first = await api.volume()
        made = await _create(api, different_host=first["id"])
        assert (await _ended(api, made))[0] == "error"
        told = (await api("GET", "/messages")).body["messages"]
        assert any("[DifferentBackendFilter]" in one["user_message"] for one in told)
        path = f"/brickyard/v1/operations?all_projects=1&resource_id={made.body['volume']['id']}"
        (whole,) = (await api("GET", path, who="root")).body["operations"]
        assert "host-a@files#" in whole["error"]["message"]
        (mine,) = (await api("GET", path.replace("all_projects=1&", ""))).body["operations"]
        assert mine["error"]["message"] == "No pool of this site fits it now [DifferentBackendFilter]."
        assert "host-a" not in str([mine, told])
        assert (await _ended(api, await _create(api, same_host=new_id())))[0] == "error"


async def test_a_foreign_volume_is_nowhere(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        first = await api.volume()
        assert (await _ended(api, await _create(api, "other", different_host=first["id"])))[0] == "available"
        assert (await _ended(api, await _create(api, "other", same_host=first["id"])))[0] == "error"


@pytest.mark.parametrize("hints", [
    {"same_host": "not-a-uuid"}, {"different_host": []}, {"same_host": 7}, {"query": 3},
    {"query": json.dumps(["and", *[["=", "$free_capacity_gb", 1]] * 200])},
    {"local_to_instance": new_id()},
    {"different_host": ["0b6ee4d6-7f0c-4c73-9b9f-5a6f5a1e0f01"] * 2},
])  # fmt: skip
async def test_what_is_no_hint_is_refused_before_anything_is_made(tmp_path: Path, hints: dict[str, Any]) -> None:
    async with volume_api(tmp_path) as api:
        assert (await _create(api, **hints)).status == 400
        assert (await api("GET", "/volumes")).body["volumes"] == []


async def test_hints_of_others_are_let_be(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        assert (await _ended(api, await _create(api, vendor_thing="x")))[0] == "available"
