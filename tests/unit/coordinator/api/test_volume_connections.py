"""Attaching the older way and the newer one, and who may end what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

SERVER = "11111111-2222-3333-4444-555555555555"
OTHER = "22222222-2222-3333-4444-555555555555"
MISSING = "99999999-2222-3333-4444-555555555555"
CONNECTOR = {"host": "host-a", "initiator": "iqn.2026-01.org.example:a", "ip": "10.0.0.1"}
SERVICE = {"X-Service-Token": "nova"}


async def status(api: Api, volume_id: str) -> str:
    return str((await api("GET", f"/volumes/{volume_id}", who="root")).body["volume"]["status"])


async def shown(api: Api, volume_id: str) -> dict[str, Any]:
    return dict((await api("GET", f"/volumes/{volume_id}", who="root")).body["volume"])


def text(answer: Answered) -> str:
    return str(next(iter(answer.body.values()))["message"])


async def types(api: Api, name: str, **specs: str) -> str:
    made = await api("POST", "/types", who="root", json={"volume_type": {"name": name}})
    type_id = made.body["volume_type"]["id"]
    if specs:
        await api("POST", f"/types/{type_id}/extra_specs", who="root", json={"extra_specs": specs})
    return str(type_id)


async def test_the_older_way_there_and_back(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        assert (await api.act(volume, "os-reserve")).status == 202
        first = await api.act(volume, "os-initialize_connection", {"connector": CONNECTOR})
        assert first.status == 200, first.body
        assert first.body["connection_info"]["driver_volume_type"] == "local"
        assert first.body["connection_info"]["data"]["volume_id"] == volume
        again = await api.act(volume, "os-initialize_connection", {"connector": CONNECTOR})
        assert again.body == first.body
        assert len((await api("GET", f"/attachments?volume_id={volume}")).body["attachments"]) == 1
        body = {"instance_uuid": SERVER, "mountpoint": "/dev/vdb", "mode": "rw"}
        for _ in range(2):
            assert (await api.act(volume, "os-attach", body)).status == 202
        now = await shown(api, volume)
        assert (now["status"], now["metadata"]) == ("in-use", {"attached_mode": "rw"})
        assert [(item["server_id"], item["device"]) for item in now["attachments"]] == [(SERVER, "/dev/vdb")]
        assert now["attachments"][0]["host_name"] == "host-a"
        taken = await api.act(volume, "os-attach", {**body, "instance_uuid": OTHER})
        assert (taken.status, "already attached" in text(taken)) == (400, True)
        assert (await api.act(volume, "os-begin_detaching")).status == 202
        assert await status(api, volume) == "detaching"
        assert (await api.act(volume, "os-begin_detaching")).status == 400
        assert (await api.act(volume, "os-roll_detaching")).status == 202
        assert (await api.act(volume, "os-roll_detaching")).status == 202
        assert await status(api, volume) == "in-use"
        await api.act(volume, "os-begin_detaching")
        for _ in range(2):
            assert (await api.act(volume, "os-terminate_connection", {"connector": CONNECTOR})).status == 202
        assert (await api("GET", "/attachments/detail")).body["attachments"][0]["connection_info"] == {}
        chosen = now["attachments"][0]["attachment_id"]
        assert (await api.act(volume, "os-detach", {"attachment_id": chosen})).status == 202
        now = await shown(api, volume)
        assert (now["status"], now["attachments"], now["metadata"]) == ("available", [], {})


async def test_a_connection_that_nobody_used_leaves_nothing(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        for connector in ({}, {"host": ""}, {"host": 1}):
            assert (await api.act(volume, "os-initialize_connection", {"connector": connector})).status == 400
        far = await api.act(volume, "os-initialize_connection", {"connector": {**CONNECTOR, "host": "elsewhere"}})
        assert (far.status, "no transport" in text(far)) == (409, True)
        assert (await api.act(volume, "os-initialize_connection", None)).status == 400
        assert await status(api, volume) == "available"
        await api.act(volume, "os-initialize_connection", {"connector": CONNECTOR})
        assert await status(api, volume) == "attaching"
        assert (await api("DELETE", f"/volumes/{volume}")).status == 400
        refused = await api.act(volume, "os-initialize_connection", {"connector": {**CONNECTOR, "initiator": "iqn.b"}})
        assert refused.status == 400
        assert (await api.act(volume, "os-terminate_connection", {"connector": CONNECTOR})).status == 202
        assert await status(api, volume) == "available"
        assert (await api("GET", "/attachments")).body["attachments"] == []


async def test_what_attach_and_detach_refuse(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        assert (await api.act(volume, "os-attach", {"mountpoint": "/dev/vdb"})).status == 400
        assert (await api.act(volume, "os-attach", {"instance_uuid": "x", "mountpoint": "/dev/vdb"})).status == 400
        assert (await api.act(volume, "os-attach", {"instance_uuid": SERVER})).status == 400
        await api.act(volume, "os-update_readonly_flag", {"readonly": True})
        body = {"host_name": "h", "mountpoint": "/dev/vdb"}
        assert (await api.act(volume, "os-attach", body)).status == 400
        assert (await api.act(volume, "os-attach", {**body, "mode": "ro"})).status == 202
        assert (await shown(api, volume))["metadata"] == {"readonly": "True", "attached_mode": "ro"}
        assert (await api.act(volume, "os-begin_detaching")).status == 202
        assert (await api.act(volume, "os-detach", {"attachment_id": MISSING})).status == 202
        assert await status(api, volume) == "in-use"
        assert (await api.act(volume, "os-detach", {}, who="other")).status == 404
        assert (await api.act(volume, "os-detach", {}, who="looker")).status == 403
        assert (await api.act(volume, "os-detach", {})).status == 202
        assert await status(api, volume) == "available"
        assert (await api.act(volume, "os-detach", None)).status == 202


async def test_an_attachment_in_use_is_ended_by_the_service_that_keeps_it(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        wanted = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER, "connector": CONNECTOR}}
        made = await api("POST", "/attachments", json=wanted, headers=SERVICE)
        attachment = made.body["attachment"]["id"]
        await api("POST", f"/attachments/{attachment}/action", json={"os-complete": None}, headers=SERVICE)
        for who in ("worker", "root"):
            for method, path, body in (
                ("DELETE", f"/attachments/{attachment}", None),
                ("POST", f"/volumes/{volume}/action", {"os-detach": {"attachment_id": attachment}}),
                ("POST", f"/volumes/{volume}/action", {"os-terminate_connection": {"connector": CONNECTOR}}),
            ):
                refused = await api(method, path, who=who, json=body)
                assert refused.status == 409, (method, path, refused.body)
                assert f"Detach volume from instance {SERVER} using the Compute API" in text(refused)
        for name, body in (("os-force_detach", {"attachment_id": attachment}),
                           ("os-reset_status", {"status": "available", "attach_status": "detached"})):  # fmt: skip
            refused = await api.act(volume, name, body, who="root")
            assert (refused.status, attachment in text(refused)) == (409, True)
        assert await status(api, volume) == "in-use"
        gone = await api("DELETE", f"/attachments/{attachment}", headers=SERVICE)
        assert (gone.status, gone.body) == (200, {"attachments": []})
        assert await status(api, volume) == "available"


async def test_what_is_only_reserved_or_nobodys_may_go(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        wanted = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER}}
        made = (await api("POST", "/attachments", json=wanted, headers=SERVICE)).body["attachment"]["id"]
        assert (await api("DELETE", f"/attachments/{made}")).status == 200
        made = (await api("POST", "/attachments", json=wanted)).body["attachment"]["id"]
        await api("POST", f"/attachments/{made}/action", json={"os-complete": None})
        assert (await api("DELETE", f"/attachments/{made}")).status == 200
        made = (await api("POST", "/attachments", json=wanted, headers=SERVICE)).body["attachment"]["id"]
        await api("POST", f"/attachments/{made}/action", json={"os-complete": None}, headers=SERVICE)
        body = {"status": "available", "attach_status": "detached", "force": True}
        assert (await api.act(volume, "os-reset_status", body, who="root")).status == 202
        assert await status(api, volume) == "available"


async def test_force_detach_from_every_status(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        force: dict[str, Any] = {"attachment_id": None, "connector": None}
        assert (await api.act(volume, "os-force_detach", force)).status == 403
        for _ in range(2):
            assert (await api.act(volume, "os-force_detach", force, who="root")).status == 202
        unknown = await api.act(volume, "os-force_detach", {"attachment_id": MISSING}, who="root")
        assert (unknown.status, "could not be found with filter" in text(unknown)) == (400, True)
        await api.act(volume, "os-initialize_connection", {"connector": CONNECTOR})
        assert (await api.act(volume, "os-force_detach", force, who="root")).status == 202
        assert await status(api, volume) == "available"
        await api.act(volume, "os-attach", {"host_name": "h", "mountpoint": "/dev/vdb"})
        await api.act(volume, "os-begin_detaching")
        for _ in range(2):
            assert (await api.act(volume, "os-force_detach", force, who="root")).status == 202
        assert await status(api, volume) == "available"
        assert (await api("GET", "/attachments")).body["attachments"] == []


async def test_multiattach_by_type(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await types(api, "shared", multiattach="<is> True")
        await types(api, "plain")
        volume = await api.volume(volume_type="shared")
        assert (volume["status"], volume["multiattach"]) == ("available", True)
        path, ids = f"/volumes/{volume['id']}/action", []
        for server in (SERVER, OTHER):
            wanted = {"attachment": {"volume_uuid": volume["id"], "instance_uuid": server}}
            made = await api("POST", "/attachments", json=wanted)
            assert made.status == 200, made.body
            ids.append(made.body["attachment"]["id"])
            await api("POST", f"/attachments/{ids[-1]}/action", json={"os-complete": None})
        now = await shown(api, volume["id"])
        assert (now["status"], {item["attachment_id"] for item in now["attachments"]}) == ("in-use", set(ids))
        unclear = await api("POST", path, json={"os-detach": {}})
        assert (unclear.status, "More than one attachment" in text(unclear)) == (400, True)
        assert (await api("POST", path, json={"os-detach": {"attachment_id": ids[0]}})).status == 202
        assert await status(api, volume["id"]) == "in-use"
        assert (await api("POST", path, json={"os-retype": {"new_type": "plain"}})).status == 400
        assert (await api("POST", path, json={"os-detach": {}})).status == 202
        assert await status(api, volume["id"]) == "available"
        encrypted = await types(api, "both", multiattach="<is> True")
        await api("POST", f"/types/{encrypted}/encryption", who="root", json={"encryption": {"provider": "luks"}})
        refused = await api("POST", "/volumes", json={"volume": {"size": 1, "volume_type": "both"}})
        assert (refused.status, "both encrypted and multiattach" in text(refused)) == (400, True)


async def test_the_same_server_on_its_way_to_another_host(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        wanted = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER}}
        first = (await api("POST", "/attachments", json=wanted)).body["attachment"]["id"]
        await api("POST", f"/attachments/{first}/action", json={"os-complete": None})
        second = await api("POST", "/attachments", json=wanted)
        assert second.status == 200
        assert await status(api, volume) == "in-use"
        foreign = {"attachment": {"volume_uuid": volume, "instance_uuid": OTHER}}
        assert (await api("POST", "/attachments", json=foreign)).status == 400
        left = await api("DELETE", f"/attachments/{first}")
        assert [item["id"] for item in left.body["attachments"]] == [second.body["attachment"]["id"]]
        assert await status(api, volume) == "reserved"


async def test_of_several_attaching_at_once_one_wins(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        servers = [f"{number:08d}-2222-3333-4444-555555555555" for number in range(8)]
        answers = await asyncio.gather(
            *(api.act(volume, "os-attach", {"instance_uuid": one, "mountpoint": "/dev/vdb"}) for one in servers)
        )
        assert sorted(answer.status for answer in answers) == [202] + [400] * 7
        assert len((await shown(api, volume))["attachments"]) == 1
