"""Freezing back ends, and forgetting volumes whose storage is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from coordinator.state import events
from coordinator.state.tables.events import events as event_rows
from coordinator.state.tables.fleet import hosts, pools
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.test_nova_sequences import Nova
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

V1 = "/brickyard/v1"


async def frozen(api: Api, name: str, verb: str = "freeze", who: str = "root") -> Answered:
    return await api("PUT", f"/os-services/{verb}", who=who, json={"host": name})


async def test_what_lies_on_a_frozen_back_end_stays_as_it_is(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        taken = (await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})).body["snapshot"]["id"]
        await api.settled()
        attachment = await Nova(api).attached(volume)
        assert (await frozen(api, "host-a@files", who="worker")).status == 403
        assert (await frozen(api, "host-a@moon")).status == 400
        assert (await frozen(api, "host-a@files")).status == 200
        listed = (await api("GET", "/os-services?binary=cinder-volume", who="root")).body["services"]
        assert [(one["frozen"], one["status"], one["disabled_reason"]) for one in listed] == [
            (True, "disabled", "frozen")
        ]
        other = (await api("POST", "/types", who="root", json={"volume_type": {"name": "other"}})).status
        assert other == 200
        tries: dict[str, Any] = {
            "snapshot": api("POST", "/snapshots", json={"snapshot": {"volume_id": volume, "force": True}}, version=65),
            "delete snapshot": api("DELETE", f"/snapshots/{taken}"),
            "extend": api.act(volume, "os-extend", {"new_size": 2}),
            "retype": api.act(volume, "os-retype", {"new_type": "other", "migration_policy": "never"}),
        }
        for name, attempt in tries.items():
            answer = await attempt
            assert (answer.status, "host-a@files is frozen" in answer.body["badRequest"]["message"]) == (400, True), (
                name
            )
        assert (await api.volume())["status"] == "error"
        await Nova(api).delete(attachment)
        assert (await api("DELETE", f"/volumes/{volume}")).status == 400
        assert (await api("GET", f"/volumes/{volume}")).body["volume"]["status"] == "available"
        assert (await frozen(api, "host-a@files", "thaw")).status == 200
        assert (await api.act(volume, "os-extend", {"new_size": 2})).status == 202
        await api.settled()
        assert (await api.volume())["status"] == "available"


async def used(api: Api) -> tuple[int, int, int]:
    found = (await api("GET", f"/os-quota-sets/{P1}?usage=true", who="root")).body["quota_set"]
    return tuple(found[name]["in_use"] for name in ("volumes", "gigabytes", "snapshots"))  # type: ignore[return-value]


async def forget(api: Api, volume: str, who: str = "root", **body: Any) -> Answered:
    return await api("POST", f"{V1}/volumes/{volume}/forget", who=who, json=body)


async def test_a_volume_whose_storage_is_gone_is_forgotten(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})
        await api.settled()
        assert await used(api) == (1, 2, 1)
        posted = len(api.here.hosts.wires["host-a"].posted)
        assert (await forget(api, volume, who="worker")).status == 403
        shown = (await forget(api, volume)).body["forgotten"]
        assert (shown["dry_run"], {part["what"]: part["count"] for part in shown["parts"]}) == (
            True, {"volumes": 1, "snapshots": 1},
        )  # fmt: skip
        assert (await forget(api, volume, dry_run=False)).status == 409
        assert await used(api) == (1, 2, 1)
        assert (await forget(api, volume, dry_run=False, words="the box is scrap")).status == 200
        assert (await api("GET", f"/volumes/{volume}")).status == 404
        assert (await api("GET", "/snapshots")).body["snapshots"] == []
        assert await used(api) == (0, 0, 0)
        assert len(api.here.hosts.wires["host-a"].posted) == posted
        assert (await forget(api, volume, dry_run=False, words="again")).status == 404
        await events.numbered(api.here.db)
        query = select(event_rows).where(event_rows.c.type == "forget_volume.end")
        (told,) = await api.here.db.read(lambda conn: conn.execute(query).all())
        assert told.payload["words"] == "the box is scrap"


async def test_what_is_held_or_worked_on_is_not_forgotten(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        attachment = await Nova(api).attached(volume)
        refused = await forget(api, volume, dry_run=False, words="gone")
        assert (refused.status, attachment in refused.body["error"]["message"]) == (409, True)
        assert (await forget(api, volume, dry_run=False, words="gone", force=True)).status == 200
        assert (await api("GET", "/attachments")).body["attachments"] == []
        other = (await api.volume())["id"]
        wire = api.here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        await api.act(other, "os-extend", {"new_size": 2})
        busy = await forget(api, other, dry_run=False, words="gone")
        assert (busy.status, "brickyard operation cancel" in busy.body["error"]["hint"]) == (409, True)
        wire.held.set()
        await api.settled()


async def test_a_failover_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        body = {"host": "host-a@files", "backend_id": None}
        for path in ("failover_host", "failover"):
            refused = await api("PUT", f"/os-services/{path}", who="root", json=body)
            text = refused.body["badRequest"]["message"]
            assert (refused.status, "host-a@files has no replication target" in text) == (400, True)
        unknown = await api("PUT", "/os-services/failover_host", who="root", json={"host": "host-z@files"})
        assert unknown.status == 400
        assert (await api("PUT", "/os-services/failover_host", json=body)).status == 403


async def test_what_is_no_service_is_not_found(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        (own,) = (await api("GET", "/os-services?binary=cinder-scheduler", who="root")).body["services"]
        for verb in ("enable", "disable"):
            for host, binary, status in (("host-a@files", "invalid", 404), ("moon", "cinder-scheduler", 404),
                                         ("moon@files", "cinder-volume", 404), (own["host"], own["binary"], 400),
                                         ("host-a@files", "cinder-volume", 200)):  # fmt: skip
                asked = {"host": host, "binary": binary}
                assert (await api("PUT", f"/os-services/{verb}", who="root", json=asked)).status == status, asked


@pytest.mark.parametrize("body", [{"words": ""}, {"dry_run": "perhaps"}, {"words": 7}])
async def test_bad_words(tmp_path: Path, body: dict[str, Any]) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        assert (await forget(api, volume, **body)).status == 400


async def test_storage_that_is_gone_is_told_apart_from_a_host_that_does_not_answer(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:

        async def told(version: int) -> tuple[str, Any]:
            path = "/os-services?binary=cinder-volume"
            (one,) = (await api("GET", path, who="root", version=version)).body["services"]
            return one["state"], one.get("backend_state")

        async def becomes(table: Any, **values: Any) -> None:
            await api.here.db.write(lambda conn: conn.execute(update(table).values(**values)) and None)

        assert [await told(version) for version in (48, 49)] == [("up", None), ("up", "up")]
        await becomes(pools, present=False)
        assert [await told(version) for version in (48, 49)] == [("down", None), ("up", "down")]
        assert (await api("GET", "/os-hosts", who="root")).body["hosts"][0]["service-status"] == "unavailable"
        await becomes(hosts, reachable=False)
        assert await told(49) == ("down", "down")
        (own,) = (await api("GET", "/os-services?binary=cinder-scheduler", who="root")).body["services"]
        assert "backend_state" not in own


async def test_a_cluster_is_frozen_as_a_whole(tmp_path: Path) -> None:
    async with volume_api(tmp_path, ("host-a", "host-b"), cluster="c1") as api:
        volume = (await api.volume())["id"]

        async def put(verb: str, body: dict[str, Any], version: int = 26) -> Answered:
            return await api("PUT", f"/os-services/{verb}", who="root", json=body, version=version)

        for verb in ("freeze", "thaw", "failover_host"):
            for body in ({}, {"host": "host-a@files", "cluster": "c1@files"}):
                both = await put(verb, body)
                assert (both.status, "only one" in both.body["badRequest"]["message"]) == (400, True)
            older = await put(verb, {"cluster": "c1@files"}, version=25)
            assert (older.status, "cluster" in older.body["badRequest"]["message"]) == (400, True)
            assert (await put(verb, {}, version=25)).body["badRequest"]["message"] == "Host field is missing."
            assert (await put(verb, {"cluster": "moon@files"})).status == 404
        assert (
            "has no replication target"
            in (await put("failover", {"cluster": "c1@files"})).body["badRequest"]["message"]
        )
        assert (await put("freeze", {"cluster": "c1@files"})).status == 200
        services = (await api("GET", "/os-services?binary=cinder-volume", who="root")).body["services"]
        assert [(one["frozen"], one["status"]) for one in services] == [(True, "disabled")] * 2
        (one,) = (await api("GET", "/clusters/detail?frozen=true", who="root")).body["clusters"]
        assert (one["frozen"], one["status"], one["disabled_reason"]) == (True, "disabled", "frozen")
        assert (await api.act(volume, "os-extend", {"new_size": 2})).status == 400
        assert (await put("thaw", {"cluster": "c1@files"})).status == 200
        assert (await api.act(volume, "os-extend", {"new_size": 2})).status == 202
        await api.settled()
        assert (await api("GET", "/clusters/detail?frozen=true", who="root")).body["clusters"] == []
        assert (await put("freeze", {"host": "host-a@files"})).status == 200
        (one,) = (await api("GET", "/clusters/detail", who="root")).body["clusters"]
        assert one["frozen"] is False, "one of its hosts is not the cluster"
