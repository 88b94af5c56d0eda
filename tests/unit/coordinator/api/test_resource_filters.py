"""The site's file says what users may filter by; a broken one allows nothing and stops nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordinator.api.resource_filters import BUILTIN, ResourceFilters
from tests.unit.coordinator.api.volumesite import volume_api


def test_the_file_replaces_the_built_in_choice(tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    path.write_text(json.dumps({"volume": ["status"]}))
    found = ResourceFilters.from_file(path)
    assert (found.of("volume"), found.of("snapshot")) == (("status",), ())


@pytest.mark.parametrize("text", [None, "{", "[]", '{"volume": "status"}', '{"volume": [1]}'])
def test_a_broken_file_allows_nothing(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "filters.json"
    if text is not None:
        path.write_text(text)
    assert ResourceFilters.from_file(path).names == {}


async def test_lists_and_the_call_that_tells_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    path.write_text(json.dumps({"volume": ["status"]}))
    others = {ResourceFilters: ResourceFilters.from_file(path)}
    async with volume_api(tmp_path, others=others) as api:
        told = await api("GET", "/resource_filters")
        assert told.body == {"resource_filters": [{"resource": "volume", "filters": ["status"]}]}
        assert (await api("GET", "/volumes?status=error", version=31)).status == 200
        refused = await api("GET", "/volumes?availability_zone=x", version=31)
        assert refused.status == 400
        message = refused.body["badRequest"]["message"]
        assert "Invalid filters availability_zone are found in query options." in message
        assert (await api("GET", "/volumes?name~=x")).status == 400
        assert (await api("GET", "/volumes?availability_zone=x", version=30)).status == 200
        assert (await api("GET", "/volumes?availability_zone=x", who="root")).status == 200


async def test_like_takes_percent_and_underscore_for_themselves(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        for name in ("100%", "1000", "a_c", "abc"):
            await api.volume(name=name)
        for wanted, found in (("100%25", ["100%"]), ("a_c", ["a_c"]), ("0", ["100%", "1000"])):
            listed = await api("GET", f"/volumes?name~={wanted}")
            assert sorted(volume["name"] for volume in listed.body["volumes"]) == found
        assert (await api("GET", "/volumes?name~=a", version=33)).status == 400
    assert "name~" in BUILTIN["volume"]
