"""Managing what lies on a back end already, letting go, and going back to a snapshot."""

from __future__ import annotations

import asyncio
from pathlib import Path

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
        again = {"host": "host-a@files", "ref": {"source-name": f"volume-{volume['id']}"}}
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
            ({"volume_type": "secret"}, "encrypted"),
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
