"""Quota at the edges of the API: what is no limit and no filter is refused and changes nothing; what is over is 413."""

from __future__ import annotations

import datetime
from pathlib import Path

from coordinator.state import archiving
from coordinator.state.tables.columns import utcnow
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

MINE, CLASS = f"/os-quota-sets/{P1}", "/os-quota-class-sets/default"
COUNTED = ("volumes", "snapshots", "gigabytes", "backups", "backup_gigabytes", "groups", "per_volume_gigabytes")


async def limit(api: Api, **values: object) -> Answered:
    return await api("PUT", MINE, who="root", json={"quota_set": values})


async def usage(api: Api) -> dict[str, dict[str, int]]:
    found = (await api("GET", f"{MINE}?usage=True")).body["quota_set"]
    return {name: found[name] for name in COUNTED}


async def test_what_is_no_limit_is_refused_for_each_resource_and_changes_nothing(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        before = (await api("GET", MINE)).body["quota_set"]
        assert {name: before[name] for name in ("groups", "backups", "backup_gigabytes")} == {
            "groups": 10, "backups": 10, "backup_gigabytes": 1000,
        }  # fmt: skip
        for name in COUNTED:
            for bad in (-2, "abc", 1.5, True, None, 2**40):
                for path, key in ((MINE, "quota_set"), (CLASS, "quota_class_set")):
                    refused = await api("PUT", path, who="root", json={key: {"volumes": 3, name: bad}})
                    assert refused.status == 400, (path, name, bad, refused.body)
        for unknown in ("backups___DEFAULT__", "volume", "allocated"):
            assert (await limit(api, **{unknown: 1})).status == 400
        assert (await api("PUT", MINE, json={"quota_set": {"groups": 1}})).status == 403
        assert (await api("PUT", CLASS, json={"quota_class_set": {"groups": 1}})).status == 403
        assert (await api("GET", MINE)).body["quota_set"] == before


async def test_limits_of_groups_and_backups_are_set_and_told_everywhere(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        asked = {"groups": 5, "backups": 6, "backup_gigabytes": 7}
        assert (await api("PUT", CLASS, who="root", json={"quota_class_set": asked})).status == 200
        for path in (MINE, f"{MINE}/defaults"):
            found = (await api("GET", path)).body["quota_set"]
            assert {name: found[name] for name in asked} == asked, path
        told = await limit(api, groups=-1, backups=1)
        assert (told.body["quota_set"]["groups"], told.body["quota_set"]["backups"]) == (-1, 1)
        assert (await api("GET", f"{MINE}/defaults")).body["quota_set"]["groups"] == 5
        assert (await usage(api))["groups"] == {"limit": -1, "in_use": 0, "reserved": 0, "allocated": 0}
        absolute = (await api("GET", "/limits")).body["limits"]["absolute"]
        assert (absolute["maxTotalBackups"], absolute["maxTotalBackupGigabytes"]) == (1, 7)
        assert (absolute["totalBackupsUsed"], absolute["totalBackupGigabytesUsed"]) == (0, 0)


async def test_over_a_limit_is_413_and_nothing_is_made(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        before = await usage(api)
        assert (await limit(api, per_volume_gigabytes=2)).status == 200
        answers = [
            (await api("POST", "/volumes", json={"volume": {"size": 3}}), "Requested volume size 3G is larger"),
            (await api.act(volume, "os-extend", {"new_size": 3}), "Requested volume size 3G is larger"),
        ]
        await limit(api, per_volume_gigabytes=-1, volumes=1)
        answers.append((await api("POST", "/volumes", json={"volume": {"size": 1}}), "number of volumes allowed (1)"))
        await limit(api, volumes=-1, gigabytes=2)
        answers += [
            (await api("POST", "/volumes", json={"volume": {"size": 2}}), "allowed gigabytes quota. Requested 2G"),
            (await api.act(volume, "os-extend", {"new_size": 3}), "allowed gigabytes quota. Requested 2G"),
        ]
        await limit(api, gigabytes=-1, snapshots=0)
        made = await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})
        answers.append((made, "number of snapshots allowed (0)"))
        for answered, words in answers:
            assert answered.status == 413, answered.body
            assert words in answered.body["overLimit"]["message"]
            assert answered.headers["Retry-After"] == "0"
        await limit(api, **{name: one["limit"] for name, one in before.items()})
        assert await usage(api) == before
        assert [row["id"] for row in (await api("GET", "/volumes")).body["volumes"]] == [volume]
        assert (await api("GET", "/snapshots")).body["snapshots"] == []
        assert (await api("GET", f"/volumes/{volume}")).body["volume"]["size"] == 1


async def test_who_asks_for_what_counts(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        assert (await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})).status == 202
        await api.settled()
        for kind in ("volumes", "snapshots"):
            for path in (f"/{kind}", f"/{kind}/detail"):
                counted = {word: len((await api("GET", f"{path}?consumes_quota={word}")).body[kind])
                           for word in ("true", "1", "false", "0")}  # fmt: skip
                assert counted == {"true": 1, "1": 1, "false": 0, "0": 0}, path
                for bad in ("maybe", "2", ""):
                    refused = await api("GET", f"{path}?consumes_quota={bad}")
                    assert refused.status == 400, (path, bad, refused.body)
                    assert "consumes_quota. Use one of: true, false" in refused.body["badRequest"]["message"]
                passed_over = await api("GET", f"{path}?consumes_quota=maybe", version=64)
                assert (passed_over.status, len(passed_over.body[kind])) == (200, 1)


async def test_nobody_says_that_something_does_not_count(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        for name in ("consumes_quota", "use_quota"):
            for who in ("worker", "root"):
                body = {"volume": {"size": 1, name: False}}
                assert (await api("POST", "/volumes", who=who, json=body)).status == 400
                made = await api("POST", "/snapshots", who=who, json={"snapshot": {"volume_id": volume, name: False}})
                assert made.status == 400
                await api("PUT", f"/volumes/{volume}", who=who, json={"volume": {"name": "n", name: False}})
        assert (await api("GET", f"/volumes/{volume}")).body["volume"]["consumes_quota"] is True
        assert (await usage(api))["volumes"]["in_use"] == 1


async def test_what_was_archived_is_not_found_and_lists_are_as_before(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        kept, gone = [(await api.volume(metadata={"a": "b"}))["id"] for _ in range(2)]
        made = await api("POST", "/snapshots", json={"snapshot": {"volume_id": gone}})
        await api.settled()
        snapshot = made.body["snapshot"]["id"]
        for path in (f"/snapshots/{snapshot}", f"/volumes/{gone}"):
            assert (await api("DELETE", path)).status == 202
            await api.settled()
        asked = [f"/volumes/{gone}", f"/snapshots/{snapshot}", f"/volumes/{gone}/metadata", "/volumes/detail",
                 "/snapshots/detail", f"{MINE}?usage=True"]  # fmt: skip
        before = [(await api("GET", path, who=who)) for path in asked for who in ("worker", "root")]
        assert [answered.status for answered in before] == [404] * 6 + [200] * 6
        later = utcnow() + datetime.timedelta(days=1)
        while await api.here.db.write(lambda conn: archiving.move(conn, later)):
            pass
        after = [(await api("GET", path, who=who)) for path in asked for who in ("worker", "root")]
        assert [(each.status, each.body) for each in after] == [(each.status, each.body) for each in before]
        assert [row["id"] for row in after[6].body["volumes"]] == [kept]
        assert (await api("DELETE", f"/volumes/{gone}")).status == 404
