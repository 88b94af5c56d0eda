"""What is told of a volume's encryption, by version, and what happens when its key is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.state import keys, volumes
from tests.unit.coordinator.api.test_volume_connections import text, types
from tests.unit.coordinator.api.volumesite import Api, volume_api


async def encrypted_type(api: Api, name: str = "secret", provider: str = "luks") -> None:
    path = f"/types/{await types(api, name)}/encryption"
    assert (await api("POST", path, who="root", json={"encryption": {"provider": provider}})).status == 200


async def told(api: Api, volume_id: str, version: int) -> list[dict[str, Any]]:
    shown = (await api("GET", f"/volumes/{volume_id}", version=version)).body["volume"]
    listed = (await api("GET", "/volumes/detail", version=version)).body["volumes"]
    return [shown, *(one for one in listed if one["id"] == volume_id)]


async def test_the_key_is_named_from_its_version_on_where_there_is_one(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await encrypted_type(api)
        plain, secret = (await api.volume())["id"], (await api.volume(volume_type="secret"))["id"]
        known = {one["id"] for one in (await api("GET", "/brickyard/v1/keys")).body["keys"]}
        for volume in await told(api, secret, 64):
            assert (volume["encrypted"], volume["encryption_key_id"] in known) == (True, True)
        for volume in (*await told(api, secret, 63), *await told(api, plain, 71)):
            assert "encryption_key_id" not in volume
        await api.here.db.write(lambda conn: volumes.set_values(conn, secret, encryption_key_id=keys.FIXED_KEY))
        for volume in await told(api, secret, 71):
            assert (volume["encrypted"], "encryption_key_id" in volume) == (True, False)


async def test_a_volume_whose_key_is_gone_is_not_attached_and_stays_as_it_was(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await encrypted_type(api)
        volume = await api.volume(volume_type="secret")
        await api.here.db.write(lambda conn: api.here.keys.delete(conn, volume["encryption_key_id"]))
        body = {"volume_id": volume["id"], "host_id": "host-a"}
        begun = await api("POST", "/brickyard/v1/attachments", who="root", json=body)
        assert begun.status == 202, begun.body
        await api.settled()
        path = f"/brickyard/v1/operations/{begun.body['operation']['id']}"
        ended = (await api("GET", path, who="root")).body["operation"]
        assert (ended["state"], ended["error"]["code"]) == ("failed", "keys.not-found")
        after = (await api("GET", f"/volumes/{volume['id']}")).body["volume"]
        assert (after["status"], after["attachments"]) == ("available", [])
        said = (await api("GET", f"/messages?resource_uuid={volume['id']}", who="root")).body["messages"]
        assert volume["encryption_key_id"] in said[0]["user_message"]


async def test_another_encryption_is_refused_where_data_may_not_move(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await encrypted_type(api)
        await types(api, "plain")
        plain = await api.volume(volume_type="plain")
        secret = await api.volume(volume_type="secret")
        for volume, wanted in ((plain, "secret"), (secret, "plain")):
            answer = await api.act(volume["id"], "os-retype", {"new_type": wanted, "migration_policy": "never"})
            assert (answer.status, "encryption" in text(answer)) == (400, True)
            same = (await api("GET", f"/volumes/{volume['id']}")).body["volume"]
            assert (same["status"], same["volume_type"]) == ("available", volume["volume_type"])


async def test_a_volume_whose_key_is_gone_keeps_its_type_and_content(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await encrypted_type(api)
        await types(api, "plain")
        volume = await api.volume(volume_type="secret")
        await api.here.db.write(lambda conn: api.here.keys.delete(conn, volume["encryption_key_id"]))
        retype = {"new_type": "plain", "migration_policy": "on-demand"}
        for count, begin in enumerate((
            lambda: api.act(volume["id"], "os-retype", retype),
            lambda: api("POST", f"/brickyard/v1/volumes/{volume['id']}/rekey", json={}),
            lambda: api("POST", f"/brickyard/v1/volumes/{volume['id']}/rekey", json={"master_key": True}),
        )):  # fmt: skip
            answer = await begin()
            assert answer.status == 202, answer.body
            await api.settled()
            after = (await api("GET", f"/volumes/{volume['id']}")).body["volume"]
            assert (after["status"], after["volume_type"]) == ("available", "secret")
            assert after["encryption_key_id"] == volume["encryption_key_id"]
            said = (await api("GET", f"/messages?resource_uuid={volume['id']}", who="root")).body["messages"]
            assert len(said) == count + 1
            assert volume["encryption_key_id"] in said[0]["user_message"]
            assert (await api("GET", "/brickyard/v1/keys")).body["keys"] == [], "none is left that was made for it"
