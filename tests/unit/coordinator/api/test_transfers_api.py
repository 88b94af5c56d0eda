"""Transfers over HTTP: with snapshots or without, encrypted ones, quota, keys, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.notifications import cinder_words
from coordinator.notifications.event import Event
from coordinator.quota import limits
from coordinator.state import events
from tests.unit.coordinator.api.apitoy import P1, P2
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

HOST = "os-vol-host-attr:host"


async def offered(api: Api, volume_id: str, version: int = 71, who: str = "worker", **more: Any) -> Answered:
    body = {"transfer": {"volume_id": volume_id, "name": "gift", **more}}
    return await api("POST", "/volume-transfers", who=who, version=version, json=body)


async def taken(api: Api, transfer: Any, key: str | None = None, who: str = "other", version: int = 71) -> Answered:
    body = {"accept": {"auth_key": key if key is not None else transfer["auth_key"]}}
    return await api("POST", f"/volume-transfers/{transfer['id']}/accept", who=who, version=version, json=body)


async def a_snapshot(api: Api, volume_id: str, who: str = "worker") -> str:
    answer = await api("POST", "/snapshots", who=who, json={"snapshot": {"volume_id": volume_id}})
    assert answer.status == 202, answer.body
    await api.settled()
    return str(answer.body["snapshot"]["id"])


async def usage(api: Api, who: str, project: str) -> tuple[int, int, int]:
    found = (await api("GET", f"/os-quota-sets/{project}?usage=True", who=who)).body["quota_set"]
    return tuple(found[name]["in_use"] for name in ("volumes", "gigabytes", "snapshots"))


async def test_a_volume_goes_with_its_snapshots(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume(size=2)
        snapshot = await a_snapshot(api, volume["id"])
        answer = await offered(api, volume["id"])
        assert answer.status == 202, answer.body
        transfer = answer.body["transfer"]
        assert (transfer["source_project_id"], transfer["destination_project_id"]) == (P1, None)
        assert (transfer["accepted"], transfer["no_snapshots"]) == (False, False)
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["status"] == "awaiting-transfer"
        shown = (await api("GET", f"/volume-transfers/{transfer['id']}")).body["transfer"]
        assert "auth_key" not in shown
        assert (await api("GET", f"/volume-transfers/{transfer['id']}", who="other")).status == 404
        listed = (await api("GET", "/volume-transfers")).body["transfers"]
        assert [sorted(item) for item in listed] == [["id", "links", "name", "volume_id"]]
        assert (await api("GET", "/volume-transfers", who="other")).body["transfers"] == []
        assert (await taken(api, transfer, "wrong")).status == 400
        assert await usage(api, "worker", P1) == (1, 4, 1)
        answer = await taken(api, transfer)
        assert answer.status == 202, answer.body
        assert sorted(answer.body["transfer"]) == ["id", "links", "name", "volume_id"]
        assert (await api("GET", f"/volumes/{volume['id']}")).status == 404
        mine = (await api("GET", f"/volumes/{volume['id']}", who="other")).body["volume"]
        assert (mine["status"], mine["user_id"]) == ("available", "other")
        assert (await api("GET", f"/snapshots/{snapshot}", who="other")).status == 200
        assert (await api("GET", f"/snapshots/{snapshot}")).status == 404
        assert (await usage(api, "worker", P1), await usage(api, "other", P2)) == ((0, 0, 0), (1, 4, 1))
        assert (await taken(api, transfer)).status == 404
        assert (await api("GET", "/volume-transfers")).body["transfers"] == []


async def test_snapshots_stay_when_asked_and_before_3_55(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        snapshot = await a_snapshot(api, volume["id"])
        old = await api("POST", "/os-volume-transfer", version=0, json={"transfer": {"volume_id": volume["id"]}})
        assert (old.status, "no_snapshots" in old.body["transfer"]) == (202, False)
        assert (await api("DELETE", f"/os-volume-transfer/{old.body['transfer']['id']}", version=0)).status == 202
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["status"] == "available"
        transfer = (await offered(api, volume["id"], no_snapshots=True)).body["transfer"]
        assert (await taken(api, transfer)).status == 202
        assert (await api("GET", f"/snapshots/{snapshot}")).status == 200
        assert (await api("DELETE", f"/volumes/{volume['id']}?cascade=True", who="other")).status == 400
        assert (await api("GET", f"/snapshots/{snapshot}")).status == 200
        assert (await api("GET", f"/volumes/{volume['id']}", who="other")).body["volume"]["status"] == "available"


async def test_snapshots_that_stayed_are_out_of_the_takers_reach(tmp_path: Path) -> None:
    """He can neither hand them on as his own nor get at what the volume held when they were taken."""
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        kept = await a_snapshot(api, volume)
        assert (await taken(api, (await offered(api, volume, no_snapshots=True)).body["transfer"])).status == 202
        refused = await api.act(volume, "revert", {"snapshot_id": kept}, who="other")
        assert refused.status == 400, refused.body
        assert "is not one of volume" in refused.body["badRequest"]["message"]
        own = await a_snapshot(api, volume, who="other")
        on = await offered(api, volume, who="other")
        assert (await taken(api, on.body["transfer"])).status == 202
        assert [row["id"] for row in (await api("GET", "/snapshots", who="other")).body["snapshots"]] == [own]
        assert [row["id"] for row in (await api("GET", "/snapshots")).body["snapshots"]] == [kept]


async def test_a_revert_names_no_snapshot_of_another_project(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        own = await a_snapshot(api, volume)
        assert (await taken(api, (await offered(api, volume, no_snapshots=True)).body["transfer"])).status == 202
        theirs = await a_snapshot(api, volume, who="other")
        back = await offered(api, volume, who="other", no_snapshots=True)
        assert (await taken(api, back.body["transfer"], who="worker")).status == 202
        refused = await api.act(volume, "revert", {"snapshot_id": own})
        said = refused.body["badRequest"]["message"]
        assert (refused.status, "not the latest" in said, theirs in said) == (400, True, False)


async def test_what_can_not_be_offered(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        assert (await offered(api, volume["id"], version=54)).status == 404
        assert (await offered(api, volume["id"], no_snapshots="maybe")).status == 400
        assert (await api("POST", "/volume-transfers", who="other",
                          json={"transfer": {"volume_id": volume["id"]}})).status == 404  # fmt: skip
        first = await offered(api, volume["id"])
        assert first.status == 202
        assert (await offered(api, volume["id"])).status == 400
        assert (await api("DELETE", f"/volumes/{volume['id']}")).status == 400
        assert (await api("DELETE", f"/volume-transfers/{first.body['transfer']['id']}", who="other")).status == 404


async def test_over_quota_changes_nothing(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        await api.here.db.write(lambda conn: limits.put(conn, P2, {"volumes": 0}))
        transfer = (await offered(api, volume["id"])).body["transfer"]
        refused = await taken(api, transfer)
        assert (refused.status, "overLimit" in refused.body) == (413, True)
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["status"] == "awaiting-transfer"
        assert (await usage(api, "worker", P1), await usage(api, "other", P2)) == ((1, 1, 0), (0, 0, 0))


async def test_an_encrypted_volume_takes_its_key_along(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        made = await api("POST", "/types", who="root", json={"volume_type": {"name": "secret"}})
        crypt = f"/types/{made.body['volume_type']['id']}/encryption"
        assert (await api("POST", crypt, who="root", json={"encryption": {"provider": "luks"}})).status == 200
        volume = await api.volume(volume_type="secret")
        old = volume["encryption_key_id"]
        assert (await offered(api, volume["id"], version=69)).status == 400
        assert (await offered(api, volume["id"], no_snapshots=True)).status == 400
        transfer = (await offered(api, volume["id"])).body["transfer"]
        assert (await taken(api, transfer, version=69)).status == 400
        assert (await taken(api, transfer)).status == 202
        mine = (await api("GET", f"/volumes/{volume['id']}", who="other")).body["volume"]
        value = await api.here.db.read(
            lambda conn: api.here.keys.get(conn, mine["encryption_key_id"], project_id=P2).value
        )
        assert value
        left = await api.here.db.read(lambda conn: [row.id for row in api.here.keys.listing(conn, P1)])
        assert (mine["encryption_key_id"] != old, left) == (True, [])
        assert (await api("DELETE", f"/volumes/{volume['id']}", who="other")).status == 202


@pytest.mark.parametrize("version", [55, 58, 59, 71])
async def test_lists_page_from_3_59(tmp_path: Path, version: int) -> None:
    async with volume_api(tmp_path) as api:
        for _ in range(3):
            await offered(api, (await api.volume())["id"])
        found = (await api("GET", "/volume-transfers/detail?limit=2&sort=id:asc", version=version)).body
        paged = version >= 59
        assert (len(found["transfers"]), "transfers_links" in found) == ((2, True) if paged else (3, False))


async def test_force_takes_an_offer_back(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        for cascade in (False, True):
            volume = await api.volume()
            if cascade:
                await a_snapshot(api, volume["id"])
            transfer = (await offered(api, volume["id"])).body["transfer"]
            refused = await api("DELETE", f"/volumes/{volume['id']}")
            assert refused.status == 400, refused.body
            assert cascade or "take its transfer back" in refused.body["badRequest"]["message"]
            forced = await api("DELETE", f"/volumes/{volume['id']}?force=True&cascade={cascade}", who="root")
            assert forced.status == 202, forced.body
            await api.settled()
            assert (await api("GET", f"/volumes/{volume['id']}")).status == 404
            assert (await taken(api, transfer)).status == 404
            assert (await api("GET", "/volume-transfers")).body["transfers"] == []
            await events.numbered(api.here.db)
            rows = await api.here.db.read(lambda conn: events.after(conn, 0, None, 1000))
            told = [row.type for row in rows if row.resource_id == volume["id"]]
            assert [one for one in told if one.startswith("transfer_delete")] == [
                "transfer_delete.start", "transfer_delete.end"]  # fmt: skip


async def test_who_gave_what_to_whom_stays_to_be_seen(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        back = (await offered(api, volume)).body["transfer"]
        assert (await api("DELETE", f"/volume-transfers/{back['id']}")).status == 202
        given = (await offered(api, volume)).body["transfer"]
        assert (await taken(api, given)).status == 202
        assert (await api("DELETE", f"/volumes/{volume}", who="other")).status == 202
        await api.settled()
        path = f"/brickyard/v1/volumes/{volume}/transfers"
        found = (await api("GET", path, who="root")).body["transfers"]
        assert [(one["id"], one["accepted"], one["destination_project_id"]) for one in found] == [
            (given["id"], True, P2), (back["id"], False, None)]  # fmt: skip
        assert all(one["source_project_id"] == P1 and one["ended_at"] for one in found)
        assert (await api("GET", path)).status == 403


async def test_each_step_is_told_of_at_its_begin_and_end_in_cinders_words(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume(size=2))["id"]
        back = (await offered(api, volume)).body["transfer"]
        assert (await api("DELETE", f"/volume-transfers/{back['id']}")).status == 202
        given = (await offered(api, volume)).body["transfer"]
        assert (await taken(api, given, "wrong")).status == 400
        assert (await taken(api, given)).status == 202
        await events.numbered(api.here.db)
        rows = await api.here.db.read(lambda conn: events.after(conn, 0, None, 1000))
        told = [event for event in map(Event.of, rows) if event.type.startswith("transfer_")]
        said = [(cinder_words.named(event), event.project_id, cinder_words.payload(event)["status"]) for event in told]
        publisher = f"volume.{(await api('GET', f'/volumes/{volume}', who='root')).body['volume'][HOST]}"
        assert said == [
            (("volume.transfer.create.start", publisher), P1, "available"),
            (("volume.transfer.create.end", publisher), P1, "awaiting-transfer"),
            (("volume.transfer.delete.start", publisher), P1, "awaiting-transfer"),
            (("volume.transfer.delete.end", publisher), P1, "available"),
            (("volume.transfer.create.start", publisher), P1, "available"),
            (("volume.transfer.create.end", publisher), P1, "awaiting-transfer"),
            (("volume.transfer.accept.start", publisher), P1, "awaiting-transfer"),
            (("volume.transfer.accept.end", publisher), P2, "available"),
        ]
        assert {cinder_words.payload(event)["size"] for event in told} == {2}


async def test_a_snapshot_that_is_not_available_keeps_its_volume_where_it_is(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        snapshot = await a_snapshot(api, volume)

        async def becomes(status: str) -> None:
            path, body = f"/snapshots/{snapshot}/action", {"os-reset_status": {"status": status}}
            assert (await api("POST", path, who="root", json=body)).status == 202

        await becomes("error")
        refused = await offered(api, volume)
        assert (refused.status, snapshot in refused.body["badRequest"]["message"]) == (400, True)
        assert (await api("GET", f"/volumes/{volume}")).body["volume"]["status"] == "available"
        await becomes("available")
        given = (await offered(api, volume)).body["transfer"]
        await becomes("error")
        assert (await taken(api, given)).status == 400
        assert (await api("GET", f"/volumes/{volume}")).body["volume"]["status"] == "awaiting-transfer"
        await becomes("available")
        assert (await taken(api, given)).status == 202
