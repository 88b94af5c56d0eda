"""Managing what lies on a back end already, letting go, and going back to a snapshot."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import select, update

from coordinator.state.tables.fleet import pools
from tests.support.luks import opens
from tests.unit.coordinator.api.test_volume_connections import MISSING, SERVER, status, text, types
from tests.unit.coordinator.api.test_volume_work import snapshot, usage
from tests.unit.coordinator.api.volumesite import Api, volume_api

GIB = 1 << 30
HOST = "host-a@files#files"


def files(tmp_path: Path, folder: str) -> Path:
    return tmp_path / "host-a" / "volumes" / folder


def put(tmp_path: Path, name: str, size: int, data: bytes = b"theirs") -> None:
    path = files(tmp_path, "unmanaged") / name
    path.write_bytes(data)
    with path.open("r+b") as out:
        out.truncate(size)


async def listed(api: Api, path: str = "/manageable_volumes/detail", query: str = "") -> list[dict[str, object]]:
    answer = await api("GET", f"{path}?host={HOST.replace('#', '%23')}{query}", who="root")
    assert answer.status == 200, answer.body
    return list(next(iter(answer.body.values())))


async def test_there_and_back_without_a_copy(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        mine = (await api.volume())["id"]
        before = await usage(api)
        put(tmp_path, "theirs.raw", 1500 << 20)
        put(tmp_path, "bad", 0, b"")
        found = {item["reference"]["source-name"]: item for item in await listed(api)}  # type: ignore[index]
        assert (found["theirs.raw"]["size"], found["theirs.raw"]["safe_to_manage"]) == (2, True)
        assert (found["bad"]["safe_to_manage"], found["bad"]["reason_not_safe"]) == (False, "it is empty")
        known = found[f"volume-{mine}"]
        assert (known["reason_not_safe"], known["cinder_id"]) == ("already managed", mine)
        body = {"host": HOST, "ref": {"source-name": "theirs.raw"}, "name": "adopted", "metadata": {"a": "b"},
                "bootable": True}  # fmt: skip
        assert (await api("POST", "/manageable_volumes", json={"volume": body})).status == 403
        made = await api("POST", "/manageable_volumes", who="root", json={"volume": body})
        assert (made.status, made.body["volume"]["status"]) == (202, "creating"), made.body
        await api.settled()
        volume = (await api("GET", f"/volumes/{made.body['volume']['id']}", who="root")).body["volume"]
        assert (volume["status"], volume["size"], volume["name"], volume["bootable"]) == (
            "available", 2, "adopted", "true")  # fmt: skip
        assert (volume["volume_type"], volume["availability_zone"]) == ("__DEFAULT__", "nova")
        assert (files(tmp_path, "volumes") / volume["id"]).read_bytes()[:6] == b"theirs"
        after = await usage(api)
        assert (after["Volumes"], after["Gigabytes"]) == (before["Volumes"] + 1, before["Gigabytes"] + 2)
        assert (await api.act(volume["id"], "os-unmanage")).status == 403
        assert (await api.act(volume["id"], "os-unmanage", who="root")).status == 202
        await api.settled()
        assert (await api("GET", f"/volumes/{volume['id']}")).status == 404
        assert await usage(api) == before
        assert (files(tmp_path, "unmanaged") / f"volume-{volume['id']}").read_bytes()[:6] == b"theirs"
        again = {"host": "host-a@files", "ref": {"source-name": f"volume-{volume['id']}"}, "bootable": None}
        assert (await api("POST", "/os-volume-manage", who="root", version=0, json={"volume": again})).status == 202
        await api.settled()


async def test_what_can_not_be_managed(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        put(tmp_path, "theirs", 1 << 20)
        put(tmp_path, "bad", 0, b"")
        secret = await types(api, "secret")
        await api("POST", f"/types/{secret}/encryption", who="root", json={"encryption": {"provider": "luks"}})
        good = {"host": HOST, "ref": {"source-name": "theirs"}}
        for change, words in (
            ({"ref": {"source-name": "nope"}}, "invalid backend reference"),
            ({"ref": {"x": 1}}, "must contain source-name"),
            ({"ref": {"source-name": "../../etc/passwd"}}, "invalid backend reference"),
            ({"ref": {"source-name": "bad"}}, "it is empty"),
            ({"host": "nowhere@files"}, "Unable to find service"),
            ({"host": None}, "One and only one"),
            ({"cluster": "c"}, "One and only one"),
            ({"volume_type": "secret"}, "no key is named"),
            ({"ref": {"source-name": "theirs", "encryption-key-id": "x"}}, "id of a secret"),
            ({"ref": {"source-name": "theirs", "encryption-key-id": MISSING}}, "type with encryption"),
        ):
            answer = await api("POST", "/manageable_volumes", who="root", json={"volume": {**good, **change}})
            assert (answer.status, words in text(answer)) == (400, True), answer.body
        missing = await api("POST", "/manageable_volumes", who="root", json={"volume": {**good, "volume_type": "x"}})
        assert missing.status == 404
        for query in ("", "?host=nowhere", f"?host={HOST[:-6]}&sort=foo", "?host=h&cluster=c"):
            assert (await api("GET", f"/manageable_volumes{query}", who="root")).status == 400, query
        assert (await api("GET", f"/manageable_volumes?host={HOST[:-6]}", who="root", version=7)).status == 404
        assert (await api("GET", f"/manageable_volumes?host={HOST[:-6]}")).status == 403
        assert (files(tmp_path, "unmanaged") / "theirs").exists()


async def test_pages_of_what_can_be_managed(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        for number, size in enumerate((3, 1, 2)):
            put(tmp_path, f"f{number}", size * GIB)

        async def names(query: str) -> list[str]:
            found = await listed(api, "/manageable_volumes", query)
            assert not any("reason_not_safe" in item and item["reason_not_safe"] for item in found)
            return [str(item["reference"]["source-name"]) for item in found]  # type: ignore[index]

        assert await names("") == ["f0", "f1", "f2"]
        assert await names("&sort=size:desc") == ["f0", "f2", "f1"]
        assert await names("&limit=1") == ["f0"]
        assert await names("&limit=1&marker={'source-name': 'f0'}") == ["f1"]
        assert await names("&offset=2") == ["f2"]


async def _filter(api: Api, function: str) -> None:
    """As if the back end of the volumes had told of it."""
    reported = await api.here.db.read(lambda conn: conn.execute(select(pools.c.reported)).scalar_one())
    told = update(pools).values(reported={**reported, "filter_function": function})
    await api.here.db.write(lambda conn: conn.execute(told))


async def test_snapshots_are_let_go_and_managed_again(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume, other = (await api.volume())["id"], (await api.volume())["id"]
        taken = await snapshot(api, volume)
        before = await usage(api)
        unmanage = {"os-unmanage": None}
        assert (await api("POST", f"/snapshots/{taken}/action", json=unmanage)).status == 403
        assert (await api("POST", f"/snapshots/{taken}/action", who="root", json=unmanage)).status == 202
        await api.settled()
        assert (await api("GET", f"/snapshots/{taken}")).status == 404
        assert (await usage(api))["Snapshots"] == before["Snapshots"] - 1
        [entry] = await listed(api, "/manageable_snapshots/detail")
        assert (entry["source_reference"], entry["safe_to_manage"]) == ({"source-name": f"volume-{volume}"}, True)
        body = {"volume_id": other, "ref": entry["reference"], "name": "back"}
        refused = await api("POST", "/manageable_snapshots", who="root", json={"snapshot": body})
        assert (refused.status, f"snapshot of volume {volume}" in text(refused)) == (400, True)
        for change, code in (({"ref": {"source-name": "x"}}, 400), ({"volume_id": MISSING}, 404)):
            answer = await api("POST", "/os-snapshot-manage", who="root",
                               json={"snapshot": {**body, "volume_id": volume, **change}})  # fmt: skip
            assert answer.status == code
        body["volume_id"] = volume
        await _filter(api, "volume.size > 1")
        refused = await api("POST", "/manageable_snapshots", who="root", json={"snapshot": body})
        assert (refused.status, "[DriverFilter]" in text(refused)) == (400, True), refused.body
        await _filter(api, "volume.size == 1")
        made = await api("POST", "/manageable_snapshots", who="root", json={"snapshot": body})
        assert made.status == 202, made.body
        await api.settled()
        again = (await api("GET", f"/snapshots/{made.body['snapshot']['id']}")).body["snapshot"]
        assert (again["status"], again["size"], again["name"]) == ("available", 1, "back")
        assert await usage(api) == before
        clone = await api.volume(snapshot_id=again["id"], size=None)
        assert clone["status"] == "available"


async def test_what_can_not_be_let_go(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        await snapshot(api, volume)
        refused = await api.act(volume, "os-unmanage", who="root")
        assert (refused.status, "dependent snapshots" in text(refused)) == (400, True)
        secret = await types(api, "secret")
        await api("POST", f"/types/{secret}/encryption", who="root", json={"encryption": {"provider": "luks"}})
        made = await api("POST", "/volumes", json={"volume": {"size": 1, "volume_type": "secret"}})
        await api.settled()
        refused = await api.act(made.body["volume"]["id"], "os-unmanage", who="root")
        assert (refused.status, "encrypted" in text(refused)) == (400, True)
        other = (await api.volume())["id"]
        await api.act(other, "os-attach", {"instance_uuid": SERVER, "mountpoint": "/dev/vdb"})
        assert (await api.act(other, "os-unmanage", who="root")).status == 400


async def test_revert_to_the_latest_snapshot(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        path = files(tmp_path, "volumes") / volume
        for data in (b"A", b"B"):
            with path.open("r+b") as out:
                out.write(data)
            taken = await snapshot(api, volume)
        with path.open("r+b") as out:
            out.write(b"C")
        before = await usage(api)
        first = (await api("GET", f"/snapshots?volume_id={volume}&sort=created_at:asc")).body["snapshots"][0]["id"]
        old = await api.act(volume, "revert", {"snapshot_id": first})
        assert (old.status, "is not the latest" in text(old)) == (400, True)
        assert (await api.act(volume, "revert", {"snapshot_id": MISSING})).status == 400
        assert (await api.act(MISSING, "revert", {"snapshot_id": taken})).status == 404
        assert (await api.act(volume, "revert", {"snapshot_id": taken}, version=39)).status == 404
        wire = api.here.hosts.wires["host-a"]
        for _ in range(2):
            wire.held = asyncio.Event()
            assert (await api.act(volume, "revert", {"snapshot_id": taken})).status == 202
            assert (await api.act(volume, "revert", {"snapshot_id": taken})).status == 409
            assert (await api("DELETE", f"/volumes/{volume}")).status == 400
            wire.held.set()
            await api.settled()
            assert await status(api, volume) == "available"
            assert path.read_bytes()[:1] == b"B"
        assert (await api("GET", f"/snapshots/{taken}")).body["snapshot"]["status"] == "available"
        assert await usage(api) == before
        await api.act(volume, "os-attach", {"instance_uuid": SERVER, "mountpoint": "/dev/vdb"})
        assert (await api.act(volume, "revert", {"snapshot_id": taken})).status == 409
        await api.act(volume, "os-detach", {})
        await api.act(volume, "os-extend", {"new_size": 2})
        await api.settled()
        grown = await api.act(volume, "revert", {"snapshot_id": taken})
        assert (grown.status, "has 2 GiB" in text(grown)) == (400, True)


async def test_a_revert_that_fails_leaves_the_volume_as_it_was(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        taken = await snapshot(api, volume)
        (files(tmp_path, "snapshots") / taken).unlink()
        assert (await api.act(volume, "revert", {"snapshot_id": taken})).status == 202
        await api.settled()
        assert await status(api, volume) == "available"
        assert (await api("GET", f"/snapshots/{taken}")).body["snapshot"]["status"] == "available"
        said = (await api("GET", f"/messages?resource_uuid={volume}")).body["messages"]
        assert taken in said[0]["user_message"]


FIXED = bytes(range(32))


async def sealed(api: Api, tmp_path: Path, name: str, luks: str) -> None:
    """What a Cinder with one fixed key for all its volumes left: that key in hexadecimal opens it."""
    put(tmp_path, name, (1 << 30) + (3 << 20), b"")
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--disable-locks", "--type", luks, "--key-file", "-"]
    weak = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-size", "256"]
    file = files(tmp_path, "unmanaged") / name
    await asyncio.to_thread(subprocess.run, [*argv, *weak, file], input=FIXED.hex().encode(), check=True)


async def registered(api: Api, value: bytes, who: str = "root") -> str:
    key = {"type": "symmetric", "payload_b64": base64.b64encode(value).decode()}
    answer = await api("POST", "/brickyard/v1/keys", who=who, json={"key": key})
    assert answer.status == 201, answer.body
    return str(answer.body["key"]["id"])


@pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
@pytest.mark.parametrize("luks", ["luks1", "luks2"])
async def test_encrypted_volumes_are_managed_with_one_key_and_get_keys_of_their_own(tmp_path: Path, luks: str) -> None:
    async with volume_api(tmp_path) as api:
        await api("POST", f"/types/{await types(api, 'secret')}/encryption", who="root",
                  json={"encryption": {"provider": "luks"}})  # fmt: skip
        fixed, before = await registered(api, FIXED), await usage(api)
        made = []
        for name in ("one", "two"):
            await sealed(api, tmp_path, name, luks)
            body = {"host": HOST, "ref": {"source-name": name, "encryption-key-id": fixed}, "volume_type": "secret"}
            answer = await api("POST", "/manageable_volumes", who="root", json={"volume": body})
            assert answer.status == 202, answer.body
            await api.settled()
            made.append((await api("GET", f"/volumes/{answer.body['volume']['id']}", who="root")).body["volume"])
        for volume in made:
            assert (volume["status"], volume["encrypted"]) == ("available", True), volume
            assert volume["size"] == {"luks1": 2, "luks2": 1}[luks], "of what is inside"
            told = (await api("GET", f"/volumes/{volume['id']}/encryption", who="root")).body
            assert (told["provider"], told["cipher"], told["key_size"]) == (
                {"luks1": "luks"}.get(luks, luks), "aes-xts-plain64", 256)  # fmt: skip
            assert opens(files(tmp_path, "volumes") / volume["id"], FIXED.hex().encode())
        assert len({fixed, *(volume["encryption_key_id"] for volume in made)}) == 3
        assert (await usage(api))["Gigabytes"] == before["Gigabytes"] + sum(one["size"] for one in made)
        path = f"/brickyard/v1/keys/{fixed}/volumes"
        assert (await api("GET", path, who="other")).status == 403
        assert (await api("GET", f"{path[:-8]}0/volumes", who="root")).status == 404
        seen, marker = [], ""
        while marker is not None:
            page = (await api("GET", f"{path}?limit=1{marker and '&marker='}{marker}", who="root")).body
            seen, marker = seen + page["volumes"], page["next_marker"]
        assert sorted(one["id"] for one in seen) == sorted(volume["id"] for volume in made)
        assert [(one["status"], one["snapshots"]) for one in seen] == [("available", 0)] * 2
        # In hexadecimal as a passphrase it opens the same; another key nothing.
        key = {"type": "passphrase", "payload_b64": base64.b64encode(FIXED.hex().encode()).decode()}
        same = (await api("POST", "/brickyard/v1/keys", who="root", json={"key": key})).body["key"]["id"]
        for key_id, count in ((same, 2), (await registered(api, b"x" * 32), 0)):
            found = (await api("GET", f"/brickyard/v1/keys/{key_id}/volumes", who="root")).body
            assert (len(found["volumes"]), found["next_marker"]) == (count, None)
            await api("DELETE", f"/brickyard/v1/keys/{key_id}", who="root")
        # The fixed key can go; what opens each volume then becomes its own, too.
        assert (await api("DELETE", f"/brickyard/v1/keys/{fixed}", who="root")).status == 204
        for volume in made:
            begun = await api("POST", f"/brickyard/v1/volumes/{volume['id']}/rekey", who="root", json={})
            assert begun.status == 202, begun.body
            await api.settled()
            assert not opens(files(tmp_path, "volumes") / volume["id"], FIXED.hex().encode())
            assert (await api("DELETE", f"/volumes/{volume['id']}", who="root")).status == 202
            await api.settled()
        assert (await api("GET", "/brickyard/v1/keys", who="root")).body["keys"] == []


@pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
async def test_what_its_key_does_not_open_stays_where_it_is(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await api("POST", f"/types/{await types(api, 'secret')}/encryption", who="root",
                  json={"encryption": {"provider": "luks"}})  # fmt: skip
        await types(api, "plain")
        await sealed(api, tmp_path, "one", "luks1")
        put(tmp_path, "clear", 1 << 20)
        before = await usage(api)
        good, wrong = await registered(api, FIXED), await registered(api, b"x" * 32)
        body = {"host": HOST, "volume_type": "secret"}
        for name, key, words in (("one", wrong, "does not open"), ("clear", good, "LUKS")):
            ref = {"source-name": name, "encryption-key-id": key}
            answer = await api("POST", "/manageable_volumes", who="root", json={"volume": {**body, "ref": ref}})
            assert answer.status == 202
            await api.settled()
            volume = (await api("GET", f"/volumes/{answer.body['volume']['id']}", who="root")).body["volume"]
            assert volume["status"] == "error_managing"
            said = (await api("GET", f"/messages?resource_uuid={volume['id']}", who="root")).body["messages"]
            assert words in said[0]["user_message"]
            assert (files(tmp_path, "unmanaged") / name).exists()
            assert (await api("DELETE", f"/volumes/{volume['id']}", who="root")).status == 202
            await api.settled()
        assert await usage(api) == before
        assert {one["id"] for one in (await api("GET", "/brickyard/v1/keys", who="root")).body["keys"]} == {good, wrong}
        ref = {"source-name": "one", "encryption-key-id": await registered(api, FIXED, "other")}
        theirs = await api("POST", "/manageable_volumes", who="root", json={"volume": {**body, "ref": ref}})
        assert theirs.status == 404, "a secret of another project"
        ref["encryption-key-id"] = good
        plain = await api("POST", "/manageable_volumes", who="root",
                          json={"volume": {**body, "ref": ref, "volume_type": "plain"}})  # fmt: skip
        assert (plain.status, "type with encryption" in text(plain)) == (400, True)
