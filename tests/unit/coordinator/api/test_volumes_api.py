"""Volumes over HTTP: every field, filter and refusal that clients depend on."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from coordinator.state.metadata import MOST_KEYS
from tests.unit.coordinator.api.apitoy import P1, P2
from tests.unit.coordinator.api.volumesite import volume_api

MISSING = "99999999-2222-3333-4444-555555555555"


async def test_create_show_update_delete(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        body = {"volume": {"size": "1", "name": " first ", "description": "d", "metadata": {"a": "b"}}}
        made = await api("POST", "/volumes", json=body)
        assert made.status == 202
        volume = made.body["volume"]
        assert (volume["status"], volume["name"], volume["metadata"]) == ("creating", "first", {"a": "b"})
        assert volume["links"][0]["href"].endswith(f"/v3/volumes/{volume['id']}")
        await api.settled()
        shown = (await api("GET", f"/volumes/{volume['id']}")).body["volume"]
        assert (shown["status"], shown["bootable"], shown["encrypted"]) == ("available", "false", False)
        assert shown["os-vol-tenant-attr:tenant_id"] == P1
        assert "os-vol-host-attr:host" not in shown
        admin = (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]
        assert admin["os-vol-host-attr:host"].startswith("host-a@files#")
        changed = await api("PUT", f"/volumes/{volume['id']}", json={"volume": {"name": "second"}})
        assert (changed.status, changed.body["volume"]["name"]) == (200, "second")
        assert (await api("DELETE", f"/volumes/{volume['id']}")).status == 202
        await api.settled()
        assert (await api("GET", f"/volumes/{volume['id']}")).status == 404


async def test_fields_come_with_their_version(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        since = {13: "group_id", 48: "service_uuid", 63: "volume_type_id", 65: "consumes_quota"}
        for minor, name in since.items():
            for version in (minor - 1, minor):
                shown = (await api("GET", f"/volumes/{volume['id']}", version=version)).body["volume"]
                assert (name in shown) == (version >= minor), (name, version)
        admin = {21: "provider_id", 61: "cluster_name"}
        for minor, name in admin.items():
            assert name in (await api("GET", f"/volumes/{volume['id']}", who="root", version=minor)).body["volume"]
            assert name not in (await api("GET", f"/volumes/{volume['id']}", version=minor)).body["volume"]


async def test_what_is_refused_at_create(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        for body, text in (
            ({"size": 0}, "less than the minimum"),
            ({"size": 1.5}, "is not of type"),
            ({"size": True}, "is not of type"),
            ({"size": None}, "a size must be given"),
            ({}, "a size must be given"),
            ({"size": 1, "name": "x" * 256}, "is too long"),
            ({"size": 1, "foo": 1}, "'foo' was unexpected"),
            ({"size": 1, "snapshot_id": "abc"}, "is not a 'uuid'"),
            ({"size": 1, "multiattach": True}, "multiattach parameter has been removed"),
            ({"size": 1, "availability_zone": "moon"}, "Availability zone 'moon' is invalid"),
            ({"size": 1, "imageRef": "abc"}, "Invalid image identifier"),
            ({"size": 1, "backup_id": MISSING}, "backup_id is not supported"),
            ({"size": 1, "snapshot_id": MISSING, "source_volid": MISSING}, "Only one source"),
        ):
            answer = await api("POST", "/volumes", json={"volume": body})
            assert answer.status == 400, body
            assert text in answer.body["badRequest"]["message"], answer.body
        for body in ({"snapshot_id": MISSING}, {"source_volid": MISSING}, {"imageRef": MISSING}, {"volume_type": "x"}):
            answer = await api("POST", "/volumes", json={"volume": {"size": 1, **body}})
            assert (answer.status, [*answer.body]) == (404, ["itemNotFound"])
        assert (await api("POST", "/volumes", json={"volume": {"size": 1, "foo": 1}}, version=52)).status == 202
        assert (await api("POST", "/volumes", json={"volume": {"size": 1}}, who="looker")).status == 403


async def test_over_quota_is_413_with_the_known_sentence(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        answer = await api("POST", "/volumes", json={"volume": {"size": 1001}})
        assert answer.status == 413
        assert "VolumeSizeExceedsAvailableQuota" in answer.body["overLimit"]["message"]
        assert answer.headers["Retry-After"] == "0"
        for _ in range(10):
            assert (await api("POST", "/volumes", json={"volume": {"size": 1}})).status == 202
        answer = await api("POST", "/volumes", json={"volume": {"size": 1}})
        assert "VolumeLimitExceeded: Maximum number of volumes allowed (10)" in answer.body["overLimit"]["message"]


async def test_foreign_volumes_do_not_exist(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        path = f"/volumes/{volume['id']}"
        for method, more in (("GET", {}), ("DELETE", {}), ("PUT", {"json": {"volume": {"name": "x"}}})):
            assert (await api(method, path, who="other", **more)).status == 404
        for name, body in (("os-extend", {"new_size": 2}), ("os-reserve", None), ("os-set_bootable", {"bootable": 1})):
            assert (await api.act(volume["id"], name, body, who="other")).status == 404
        snapshot = {"snapshot": {"volume_id": volume["id"]}}
        assert (await api("POST", "/snapshots", json=snapshot, who="other")).status == 404
        attachment = {"attachment": {"volume_uuid": volume["id"]}}
        assert (await api("POST", "/attachments", json=attachment, who="other")).status == 404
        assert (await api("POST", "/volumes", json={"volume": {"size": 1, "source_volid": volume["id"]}},
                          who="other")).status == 404  # fmt: skip
        assert (await api("GET", "/volumes", who="other")).body == {"volumes": []}
        assert (await api("DELETE", path, who="looker")).status == 403


async def test_what_is_made_belongs_to_a_project(tmp_path: Path) -> None:
    """An administrator of the system sees and mends everything; what he makes would be nobody's."""
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        for path, body in (("/volumes", {"volume": {"size": 1}}), ("/brickyard/v1/keys", {"key": {}})):
            refused = await api("POST", path, who="system", json=body)
            assert refused.status == 400
            assert "OS_PROJECT_NAME" in str(refused.body)
        assert (await api("GET", f"/volumes/{volume['id']}", who="system")).status == 200
        assert (await api("DELETE", f"/volumes/{volume['id']}", who="system")).status == 202
        await api.settled()


async def test_clones_and_snapshots(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume(name="source")
        made = await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume["id"], "metadata": {"k": "v"}}})
        assert made.status == 202, made.body
        await api.settled()
        snapshot = (await api("GET", f"/snapshots/{made.body['snapshot']['id']}")).body["snapshot"]
        assert (snapshot["status"], snapshot["size"], snapshot["metadata"]) == ("available", 1, {"k": "v"})
        assert snapshot["os-extended-snapshot-attributes:progress"] == "100%"
        restored = await api.volume(size=None, snapshot_id=snapshot["id"])
        assert (restored["status"], restored["snapshot_id"]) == ("available", snapshot["id"])
        clone = await api.volume(size=2, source_volid=volume["id"])
        assert (clone["status"], clone["size"]) == ("available", 2)
        refused = await api("DELETE", f"/volumes/{volume['id']}")
        assert (refused.status, "dependent snapshots" in refused.body["badRequest"]["message"]) == (400, True)
        assert (await api("DELETE", f"/snapshots/{snapshot['id']}")).status == 202
        await api.settled()
        assert (await api("GET", f"/snapshots/{snapshot['id']}")).status == 404
        assert (await api("DELETE", f"/volumes/{volume['id']}?cascade=true")).status == 202
        assert (await api("DELETE", f"/volumes/{clone['id']}?cascade=banana")).status == 400


async def test_a_size_that_no_snapshot_has_finds_none(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        for size in ("9" * 30, "9" * 5000, "-1", "x"):
            found = await api("GET", f"/snapshots?volume_size={size}", who="root")
            assert (found.status, found.body["snapshots"]) == (200, [])


async def test_snapshot_of_a_volume_in_use_and_force(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        made = await api("POST", "/attachments", json={"attachment": {"volume_uuid": volume["id"]}})
        await api("POST", f"/attachments/{made.body['attachment']['id']}/action", json={"os-complete": None})
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["status"] == "in-use"
        body = {"volume_id": volume["id"]}
        assert (await api("POST", "/snapshots", json={"snapshot": body}, version=65)).status == 400
        refused = await api("POST", "/snapshots", json={"snapshot": {**body, "force": "no"}}, version=66)
        assert (refused.status, "force" in refused.body["badRequest"]["message"]) == (400, True)
        assert (await api("POST", "/snapshots", json={"snapshot": body}, version=66)).status == 202
        assert (await api("POST", "/snapshots", json={"snapshot": {**body, "force": True}}, version=0)).status == 202
        await api.settled()
        listed = await api("GET", "/snapshots?sort=created_at:asc&limit=1&with_count=true")
        assert (len(listed.body["snapshots"]), listed.body["count"]) == (1, 2)
        assert "marker=" in listed.body["snapshots_links"][0]["href"]


async def test_extend(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        assert (await api.act(volume["id"], "os-extend", {"new_size": 3})).status == 202
        await api.settled()
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["size"] == 3
        smaller = await api.act(volume["id"], "os-extend", {"new_size": 3})
        assert (smaller.status, "must be greater" in smaller.body["badRequest"]["message"]) == (400, True)
        assert (await api.act(volume["id"], "os-extend", {"new_size": 2000})).status == 413
        made = await api("POST", "/attachments", json={"attachment": {"volume_uuid": volume["id"]}})
        await api("POST", f"/attachments/{made.body['attachment']['id']}/action", json={"os-complete": None})
        assert (await api.act(volume["id"], "os-extend", {"new_size": 4}, version=41)).status == 400
        assert (await api.act(volume["id"], "os-extend", {"new_size": 4}, version=42)).status == 202
        await api.settled()
        shown = (await api("GET", f"/volumes/{volume['id']}")).body["volume"]
        assert (shown["size"], shown["status"]) == (4, "in-use")


async def test_flags_and_reservation(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        assert (await api.act(volume["id"], "os-set_bootable", {"bootable": "True"})).status == 200
        assert (await api.act(volume["id"], "os-update_readonly_flag", {"readonly": True})).status == 202
        shown = (await api("GET", f"/volumes/{volume['id']}")).body["volume"]
        assert (shown["bootable"], shown["metadata"]) == ("true", {"readonly": "True"})
        assert (await api("GET", f"/volumes/{volume['id']}/metadata")).body == {"metadata": {}}
        wanted = {"attachment": {"volume_uuid": volume["id"]}}
        refused = await api("POST", "/attachments", json=wanted)
        assert (refused.status, "read-only" in refused.body["badRequest"]["message"]) == (400, True)
        wanted["attachment"]["mode"] = "ro"
        made = await api("POST", "/attachments", json=wanted)
        assert made.body["attachment"]["attach_mode"] == "ro"
        assert (await api.act(volume["id"], "os-unreserve")).status == 400
        assert (await api("DELETE", f"/attachments/{made.body['attachment']['id']}")).body == {"attachments": []}
        assert (await api.act(volume["id"], "os-reserve")).status == 202
        assert (await api.act(volume["id"], "os-reserve")).status == 400
        assert (await api.act(volume["id"], "os-update_readonly_flag", {"readonly": False})).status == 400
        assert (await api.act(volume["id"], "os-unreserve")).status == 202
        assert (await api.act(volume["id"], "os-unreserve")).status == 202
        assert (await api.act(volume["id"], "os-fly")).status == 400


async def test_reset_status_tells_no_lies(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        reset = {"status": "error"}
        assert (await api.act(volume["id"], "os-reset_status", reset)).status == 403
        assert (await api.act(volume["id"], "os-reset_status", reset, who="root")).status == 202
        assert (await api.act(volume["id"], "os-reset_status", {"status": "available"}, who="root")).status == 202
        for lie in ({"status": "in-use"}, {"status": "deleting"}, {"attach_status": "attached"}, {},
                    {"migration_status": "migrating"}):  # fmt: skip
            assert (await api.act(volume["id"], "os-reset_status", lie, who="root")).status == 400, lie
        made = await api("POST", "/attachments", json={"attachment": {"volume_uuid": volume["id"]}})
        attachment = made.body["attachment"]["id"]
        await api("POST", f"/attachments/{attachment}/action", json={"os-complete": None})
        refused = await api.act(volume["id"], "os-reset_status", {"status": "available"}, who="root")
        assert refused.status == 409
        message = refused.body["conflictingRequest"]["message"]
        assert "attachments still exist" in message
        assert attachment in message
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["status"] == "in-use"
        both = {"status": "available", "attach_status": "detached"}
        assert (await api.act(volume["id"], "os-reset_status", both, who="root")).status == 202
        shown = (await api("GET", f"/volumes/{volume['id']}")).body["volume"]
        assert (shown["status"], shown["attachments"]) == ("available", [])


async def test_metadata(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume(metadata={"a": "1", "b": "2"})
        path = f"/volumes/{volume['id']}/metadata"
        first = await api("GET", path)
        assert first.body == {"metadata": {"a": "1", "b": "2"}}
        etag = first.headers["Etag"]
        assert "Etag" not in (await api("GET", path, version=14)).headers
        put = await api("PUT", path, json={"metadata": {"a": "1"}}, headers={"If-Match": etag})
        assert (put.status, put.body) == (200, {"metadata": {"a": "1"}})
        stale = await api("PUT", path, json={"metadata": {}}, headers={"If-Match": f'"{etag}"'})
        assert stale.status == 412
        assert (await api("POST", path, json={"metadata": {"c": "3"}})).body == {"metadata": {"a": "1", "c": "3"}}
        assert (await api("PUT", f"{path}/d", json={"meta": {"d": "4"}})).body == {"meta": {"d": "4"}}
        assert (await api("PUT", f"{path}/d", json={"meta": {"e": "4"}})).status == 400
        assert (await api("PUT", f"{path}/d", json={"meta": {"d": "4", "e": "4"}})).status == 400
        assert (await api("GET", f"{path}/d")).body == {"meta": {"d": "4"}}
        assert (await api("DELETE", f"{path}/d")).status == 200
        assert (await api("DELETE", f"{path}/d")).status == 404
        assert (await api("GET", f"{path}/d")).status == 404
        assert (await api("POST", path, json={"metadata": {"": "x"}})).status == 400
        assert (await api("POST", path, json={"metadata": {"x": "y" * 256}})).status == 400
        assert (await api("POST", path, json={"metadata": {"x": "y"}}, who="looker")).status == 403
        assert (await api("GET", path, who="looker")).status == 200
        assert (await api("GET", path, who="other")).status == 404


TAGS = [
    ("*", 200), (" * ", 200), ("TAG", 200), ('"TAG"', 200), ('"other", "TAG"', 200), ('"TAG","other"', 200),
    ("other, TAG", 200), ('"other"', 412), ('"other","another"', 412), ('W/"TAG"', 412), ('"x", W/"TAG"', 412),
    ('"TA G"', 412), ('"', 412), (",", 412),
]  # fmt: skip


async def test_a_change_on_condition_of_what_was_read(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        taken = (await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})).body["snapshot"]["id"]
        await api.settled()
        for path, (tags, status) in itertools.product(
            (f"/volumes/{volume}/metadata", f"/snapshots/{taken}/metadata"), TAGS
        ):
            assert (await api("PUT", path, json={"metadata": {"z": "26"}})).status == 200
            for method, where, body in (
                ("PUT", path, {"metadata": {"b": "2", "z": ""}}),
                ("POST", path, {"metadata": {"c": "3"}}),
                ("PUT", f"{path}/d", {"meta": {"d": "4"}}),
                ("DELETE", f"{path}/z", None),
            ):
                before = await api("GET", path)
                sent = {"If-Match": tags.replace("TAG", before.headers["Etag"])}
                answer = await api(method, where, headers=sent, **({"json": body} if body else {}))
                assert answer.status == status, (method, where, tags, answer.body)
                assert ((await api("GET", path)).body == before.body) == (status == 412), (method, tags)
        beside = {"metadata": {"a": "b"}, "colour": "red"}
        for method in ("POST", "PUT"):
            assert (await api(method, f"/snapshots/{taken}/metadata", json=beside)).status == 200
            assert (await api(method, f"/volumes/{volume}/metadata", json=beside)).status == 400
        older = await api("PUT", path, json={"metadata": {}}, headers={"If-Match": '"other"'}, version=14)
        assert older.status == 200, "before 3.15 nobody spoke of it"


async def test_keys_of_metadata_are_bounded_however_they_come(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        most = {f"k{at}": "" for at in range(MOST_KEYS)}
        volume = await api.volume(metadata=most)
        path = f"/volumes/{volume['id']}/metadata"
        assert (await api("POST", path, json={"metadata": {"k0": "again"}})).status == 200
        for method, where, body in (
            ("POST", path, {"metadata": {"more": ""}}),
            ("PUT", f"{path}/more", {"meta": {"more": ""}}),
            ("PUT", path, {"metadata": most | {"more": ""}}),
        ):
            refused = await api(method, where, json=body)
            assert refused.status == 400, refused.body
        assert (await api("POST", "/volumes", json={"volume": {"size": 1, "metadata": most | {"b": ""}}})).status == 400
        assert (await api("GET", path)).body == {"metadata": most | {"k0": "again"}}


async def test_lists(tmp_path: Path) -> None:
    async with volume_api(tmp_path, max_limit=2) as api:
        names = ["a", "b", "b", None]
        ids = [(await api.volume(name=name, metadata={"n": str(name)}))["id"] for name in names]
        first = (await api("GET", "/volumes?with_count=true")).body
        assert ([v["id"] for v in first["volumes"]], first["count"]) == ([ids[3], ids[2]], 4)
        href = first["volumes_links"][0]["href"]
        second = (await api("GET", href.split("/v3")[1])).body
        assert [v["id"] for v in second["volumes"]] == [ids[1], ids[0]]
        seen, path = [], "/volumes/detail?sort=name:asc,size:desc&limit=1"
        while path:
            page = (await api("GET", path)).body
            seen += [v["name"] for v in page["volumes"]]
            path = page.get("volumes_links", [{"href": "/v3"}])[0]["href"].split("/v3")[1]
        assert seen == [None, "a", "b", "b"]

        async def found(query: str, **more: object) -> list[str]:
            answer = await api("GET", f"/volumes?sort=created_at:asc&{query}", **more)
            assert answer.status == 200, answer.body
            return [v["id"] for v in answer.body["volumes"]]

        assert await found("name=a") == [ids[0]]
        assert await found("name~=a") == [ids[0]]
        assert await found("metadata={'n': 'a'}") == [ids[0]]
        assert await found("status=error") == []
        assert await found("bootable=true") == []
        assert await found("limit=0") == []
        assert await found("host=host-a@files", who="root") == ids[:2]
        assert await found("host=host-b&all_tenants=1", who="root") == []
        assert await found(f"all_tenants=1&project_id={P1}", who="root") == ids[:2]
        assert await found(f"all_tenants=1&project_id={P2}", who="root") == []
        assert await found("all_tenants=1", who="other") == []
        assert await found("created_at=gt:2020-01-01T00:00:00,lt:2090-01-01T00:00:00") == ids[:2]
        assert await found("created_at=lt:2020-01-01T00:00:00") == []
        assert await found("created_at=lt:2020-01-01T00:00:00", version=59) == ids[:2]
        assert await found("colour=red", version=30) == ids[:2]
        for query in ("colour=red", "limit=-1", "limit=x", "sort=colour", "sort=size:up", "bootable=maybe",
                      "metadata=[1]", "created_at=gt:never", "sort=size&sort_key=id", "with_count=maybe"):  # fmt: skip
            assert (await api("GET", f"/volumes?{query}")).status == 400, query
        assert (await api("GET", f"/volumes?marker={MISSING}")).status == 404
        total = (await api("GET", "/volumes/summary")).body["volume-summary"]
        assert total == {"total_count": 4, "total_size": 4, "metadata": {"n": ["None", "a", "b"]}}
        of_a = (await api("GET", '/volumes/summary?metadata={"n":"a"}')).body["volume-summary"]
        assert of_a == {"total_count": 1, "total_size": 1, "metadata": {"n": ["a"]}}
        dropped = await api("GET", "/volumes/summary?host=x&nothing=y")
        assert (dropped.status, dropped.body["volume-summary"]) == (200, total)
        assert "metadata" not in (await api("GET", "/volumes/summary", version=35)).body["volume-summary"]


async def test_one_reservation_wins(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        wanted = {"attachment": {"volume_uuid": volume["id"]}}
        answers = await asyncio.gather(*(api("POST", "/attachments", json=wanted) for _ in range(8)))
        assert sorted(answer.status for answer in answers) == [200] + [400] * 7


async def test_what_cinders_extensions_tell_is_told_by_shows_alone(tmp_path: Path) -> None:
    """As tempest's schemas want it: a strict client refuses a key that it does not know."""
    async with volume_api(tmp_path) as api:
        made = (await api("POST", "/volumes", who="root", json={"volume": {"size": 1}})).body["volume"]
        await api.settled()
        path = f"/volumes/{made['id']}"
        changed = (await api("PUT", path, who="root", json={"volume": {"name": "n"}})).body["volume"]
        shown = (await api("GET", path, who="root")).body["volume"]
        extended = {name for name in shown if name.startswith("os-vol-")}
        assert len(extended) == 4
        assert shown.keys() - extended == changed.keys() == made.keys()
        names = {one["name"] for one in (await api("GET", "/extensions")).body["extensions"]}
        assert {"Hosts", "Services", "VolumeTypeEncryption"} <= names


async def test_a_snapshot_of_null_is_of_a_volume_that_is_not_found(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        assert (await api("POST", "/snapshots", json={"snapshot": {"volume_id": None}})).status == 404
        assert (await api("POST", "/snapshots", json={"snapshot": {}})).status == 400
