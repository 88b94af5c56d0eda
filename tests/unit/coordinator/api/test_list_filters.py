"""By what lists can be filtered and sorted, by whom, and from which microversion on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from coordinator.api.resource_filters import ResourceFilters
from tests.unit.coordinator.api.apitoy import P1, P2
from tests.unit.coordinator.api.volumesite import Api, volume_api

SERVER = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with volume_api(tmp_path) as api:
        yield api


async def names(api: Api, path: str, key: str = "volumes", **more: object) -> list[str]:
    answer = await api("GET", path, **more)  # type: ignore[arg-type]
    assert answer.status == 200, answer.body
    return sorted(str(item.get("name")) for item in answer.body[key])


async def test_before_the_site_has_a_say_its_file_still_names_the_filters_of_volumes(tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    path.write_text(json.dumps({"volume": ["status"]}))
    async with volume_api(tmp_path, others={ResourceFilters: ResourceFilters.from_file(path)}) as api:
        await api.volume(name="one")
        for version in (0, 30):
            assert await names(api, "/volumes?availability_zone=x", version=version) == ["one"]
            assert await names(api, "/volumes?status=error", version=version) == []
            assert await names(api, "/volumes?availability_zone=x", version=version, who="root") == []
        assert (await api("GET", "/volumes?availability_zone=x", version=31)).status == 400


async def test_before_the_site_has_a_say_snapshots_and_attachments_have_filters_of_their_own(api: Api) -> None:
    volume = await api.volume(name="one")
    made = await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume["id"], "name": "snap"}})
    assert made.status == 202
    await api.settled()
    for query, found in (("name=other", []), (f"volume_id={SERVER}", []), ("status=error", []),
                         ("display_name=other", ["snap"]), ("availability_zone=x", ["snap"])):  # fmt: skip
        assert await names(api, f"/snapshots?{query}", "snapshots", version=30) == found, query
    held = {"attachment": {"volume_uuid": volume["id"], "instance_uuid": SERVER}}
    assert (await api("POST", "/attachments", json=held)).status == 200
    for query, count in (("attach_mode=ro", 1), ("attached_host=x", 1), (f"volume_id={SERVER}", 0), ("status=x", 0)):
        answer = await api("GET", f"/attachments?{query}", version=30)
        assert len(answer.body["attachments"]) == count, query


async def test_transfers_are_found_by_name_at_every_version(api: Api) -> None:
    volume = await api.volume()
    await api("POST", "/volume-transfers", json={"transfer": {"volume_id": volume["id"], "name": "gift"}})
    for who in ("worker", "root"):
        for version in (55, 59, 71):
            path = "/volume-transfers?all_tenants=1&"
            assert await names(api, f"{path}name=gift", "transfers", version=version, who=who) == ["gift"]
            assert await names(api, f"{path}name=other", "transfers", version=version, who=who) == []
            assert await names(api, f"{path}colour=red", "transfers", version=version, who=who) == []
    assert await names(api, "/os-volume-transfer?name=other", "transfers", version=0) == []


async def test_types_are_found_by_name(api: Api) -> None:
    for name in ("gold", "silver"):
        assert (await api("POST", "/types", who="root", json={"volume_type": {"name": name}})).status == 200
    for who in ("worker", "root"):
        assert await names(api, "/types?name=gold", "volume_types", who=who) == ["gold"]
    assert await names(api, "/types?name=gold", "volume_types", version=51) == ["gold"]
    assert (await api("GET", "/types?colour=red", version=52)).status == 400
    assert (await api("GET", "/types?colour=red", version=51)).status == 200


async def test_what_nothing_is_filtered_by_matches_nothing_for_an_administrator(api: Api) -> None:
    volume = await api.volume(name="one")
    await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume["id"], "name": "snap"}})
    await api.settled()
    for path, key in (("/volumes", "volumes"), ("/snapshots", "snapshots"), ("/types", "volume_types")):
        for version in (30, 71):
            answer = await api("GET", f"{path}?colour=red", who="root", version=version)
            assert (answer.status, answer.body) == (200, {key: []})
    counted = await api("GET", "/volumes/detail?colour=red&with_count=true", who="root")
    assert counted.body == {"volumes": [], "count": 0}
    summary = (await api("GET", "/volumes/summary?colour=red", who="root")).body["volume-summary"]
    assert summary["total_count"] == 1


async def test_another_project_needs_all_tenants(api: Api) -> None:
    await api.volume(name="mine", who="root")
    await api.volume(name="theirs", who="other")
    for query, found in ((f"project_id={P2}", []), (f"project_id={P1}", ["mine"]),
                         (f"project_id={P2}&all_tenants=1", ["theirs"]), ("all_tenants=1", ["mine", "theirs"]),
                         ("all_tenants=0", ["mine"])):  # fmt: skip
        assert await names(api, f"/volumes?{query}", who="root") == found, query
    assert await names(api, "/volumes?all_tenants=1") == ["mine"]
    assert (await api("GET", "/volumes?all_tenants=maybe", who="root")).status == 400


async def test_names_of_filters_are_ascii(api: Api) -> None:
    for who in ("worker", "root"):
        answer = await api("GET", f"/volumes?{quote('größe')}=1", who=who)
        assert answer.status == 400
        assert "Filter keys can only contain ASCII characters." in answer.body["badRequest"]["message"]


async def test_times(api: Api) -> None:
    await api.volume(name="one")
    changed = await api.volume(name="two")
    assert (await api("PUT", f"/volumes/{changed['id']}", json={"volume": {"description": "d"}})).status == 200
    for query, found in (
        ("created_at=gt:2020-01-01T00:00:00+00:00", ["one", "two"]),  # the plus arrives as a blank
        ("created_at=gt:2020-01-01T00:00:00%2B00:00", ["one", "two"]),
        ("created_at=gt:2020-01-01T00:00:00Z,lt:2021-01-01 00:00:00", []),
        ("created_at=neq:2020-01-01T00:00:00", ["one", "two"]),
    ):
        assert await names(api, f"/volumes?{query}") == found, query
    for wrong in ("2020-01-01T00:00:00", "foo:2020-01-01T00:00:00", "gt:yesterday", "gt:", ""):
        assert (await api("GET", f"/volumes?created_at={wrong}")).status == 400, wrong


async def test_a_volume_that_was_never_changed_matches_no_time_of_a_change(api: Api) -> None:
    made = await api("POST", "/volumes", json={"volume": {"size": 1, "name": "one"}})
    await api.settled()
    await api.here.db.write(lambda conn: conn.exec_driver_sql("UPDATE volumes SET updated_at = NULL"))
    assert made.status == 202
    for word in ("gt", "lt", "eq", "neq"):
        assert await names(api, f"/volumes?updated_at={word}:2020-01-01T00:00:00") == []


async def test_a_size_is_told_by_the_source(api: Api) -> None:
    source = await api.volume(size=2)
    snapshot = (await api("POST", "/snapshots", json={"snapshot": {"volume_id": source["id"]}})).body["snapshot"]["id"]
    await api.settled()
    for body in (
        {"snapshot_id": snapshot},
        {"source_volid": source["id"]},
        {"source_volid": source["id"], "size": None},
    ):
        answer = await api("POST", "/volumes", json={"volume": body})
        assert (answer.status, answer.body["volume"]["size"]) == (202, 2), answer.body
    await api.settled()
    nothing = await api("POST", "/volumes", json={"volume": {}})
    assert nothing.status == 400
    assert "a size must be given" in nothing.body["badRequest"]["message"]


async def test_a_field_of_two_kinds_is_named_by_its_name(api: Api) -> None:
    wrong = await api("POST", "/manageable_volumes", who="root", json={"volume": {"host": "h", "ref": 3}})
    assert wrong.status == 400
    assert wrong.body["badRequest"]["message"].startswith("Invalid input for field/attribute ref. Value: 3. ")
