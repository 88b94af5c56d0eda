"""No volume without a type, and no type changed under its volumes or taken from a project that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import NotFound
from coordinator.state import types
from tests.unit.coordinator.api.apitoy import P1, P2
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api


async def a_type(api: Api, name: str, **more: Any) -> str:
    answer = await api("POST", "/types", who="root", json={"volume_type": {"name": name, **more}})
    assert answer.status == 200, answer.body
    return str(answer.body["volume_type"]["id"])


async def changed(api: Api, type_id: str, **values: Any) -> Answered:
    return await api("PUT", f"/types/{type_id}", who="root", json={"volume_type": values})


def said(answer: Answered) -> str:
    return str(next(iter(answer.body.values()))["message"])


async def test_the_default_by_another_name_is_followed_by_a_new_one(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        default = (await api("GET", "/types/default")).body["volume_type"]["id"]
        assert (await changed(api, default, name="plain")).status == 200
        now = (await api("GET", "/types/default")).body["volume_type"]
        assert (now["name"], now["id"] == default) == ("__DEFAULT__", False)
        assert (await api.volume())["volume_type"] == "__DEFAULT__"
        assert (await changed(api, now["id"], description="for all")).body["volume_type"]["name"] == "__DEFAULT__"


async def test_a_private_type_is_hidden_from_a_scope_without_a_project(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        hidden = await a_type(api, "hidden", **{"os-volume-type-access:is_public": False})
        await api.here.db.read(lambda conn: types.get(conn, hidden))
        with pytest.raises(NotFound):
            await api.here.db.read(lambda conn: types.get(conn, hidden, ""))


async def test_a_configured_default_keeps_its_name(tmp_path: Path) -> None:
    async with volume_api(tmp_path, default_volume_type="gold") as api:
        refused = await api("POST", "/volumes", json={"volume": {"size": 1}})
        assert (refused.status, "default volume type gold cannot be found" in said(refused)) == (400, True)
        gold = await a_type(api, "gold")
        assert (await api.volume())["volume_type"] == "gold"
        refused = await changed(api, gold, name="silver")
        assert (refused.status, "api.default_volume_type" in said(refused)) == (400, True)
        assert (await api("GET", f"/types/{gold}")).body["volume_type"]["name"] == "gold"


async def test_null_leaves_alone_what_an_empty_text_clears(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        gold = await a_type(api, "gold", description="fast")
        assert (await changed(api, gold, description=None)).status == 400
        kept = await changed(api, gold, description=None, name="golden")
        assert (kept.body["volume_type"]["description"], kept.body["volume_type"]["name"]) == ("fast", "golden")
        assert (await changed(api, gold, description="")).body["volume_type"]["description"] == ""


async def test_extra_specs_stay_while_a_volume_has_the_type(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        gold = await a_type(api, "gold", extra_specs={"multiattach": "<is> True"})
        path, two = f"/types/{gold}/extra_specs", {"multiattach": "<is> True", "cacheable": "<is> True"}
        both = await api("POST", "/types", who="root", json={"volume_type": {"name": "both", "extra_specs": two}})
        assert (both.status, said(both)) == (400, "cacheable cannot be set with multiattach.")
        assert "both" not in [one["name"] for one in (await api("GET", "/types")).body["volume_types"]]
        both = await api("POST", path, who="root", json={"extra_specs": {"cacheable": "<is> True"}})
        assert (both.status, said(both)) == (400, "cacheable cannot be set with multiattach.")
        assert (await api("POST", path, who="root", json={"extra_specs": {"a": "b"}})).status == 200
        volume = await api.volume(volume_type="gold")
        for answer in (
            await api("POST", path, who="root", json={"extra_specs": {"a": "c"}}),
            await api("PUT", f"{path}/a", who="root", json={"a": "c"}),
            await api("DELETE", f"{path}/a", who="root"),
        ):
            assert (answer.status, "Volume Type is currently in use." in said(answer)) == (400, True)
        assert (await api("GET", path, who="root")).body["extra_specs"] == {"multiattach": "<is> True", "a": "b"}
        assert (await api("DELETE", f"/volumes/{volume['id']}")).status == 202
        await api.settled()
        assert (await api("DELETE", f"{path}/a", who="root")).status == 202


async def test_a_hidden_key_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        gold = await a_type(api, "gold", extra_specs={"volume_backend_name": "Secret"})
        for key in ("volume_backend_name", "nothing"):
            answer = await api("GET", f"/types/{gold}/extra_specs/{key}")
            text = f"Volume Type {gold} has no extra specs with key {key}."
            assert (answer.status, answer.body["itemNotFound"]["message"]) == (404, text)
        assert (await api("DELETE", f"/types/{gold}/extra_specs/nothing", who="root")).status == 404


async def test_a_projects_default_is_not_hidden_from_it(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        gold = await a_type(api, "gold")
        wanted = {"default_type": {"volume_type": "gold"}}
        assert (await api("PUT", f"/default-types/{P1}", who="root", json=wanted)).status == 200
        refused = await changed(api, gold, is_public=False)
        assert (refused.status, P1 in said(refused)) == (400, True)
        assert (await api.volume())["volume_type"] == "gold"
        assert (await api("DELETE", f"/default-types/{P1}", who="root")).status == 204
        assert (await changed(api, gold, is_public=False)).status == 200
        for verb, project, status in (("add", P1, 202), ("add", P2, 202)):
            body = {f"{verb}ProjectAccess": {"project": project}}
            assert (await api("POST", f"/types/{gold}/action", who="root", json=body)).status == status
        assert (await api("PUT", f"/default-types/{P1}", who="root", json=wanted)).status == 200
        revoke = {project: {"removeProjectAccess": {"project": project}} for project in (P1, P2)}
        refused = await api("POST", f"/types/{gold}/action", who="root", json=revoke[P1])
        assert (refused.status, "default-type-unset" in said(refused)) == (400, True)
        assert (await api("POST", f"/types/{gold}/action", who="root", json=revoke[P2])).status == 202


OURS = {"OpenStack-API-Version": "volume 3.71, brickyard 1.1"}


async def test_metadata_of_types_is_for_users_alone(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        words = {"volume_type": {"name": "gold", "metadata": {"encrypted": "no"}}}
        assert (await api("POST", "/types", who="root", json=words, headers=OURS)).body["volume_type"]["metadata"] == {
            "encrypted": "no"
        }
        gold = (await api("GET", "/types?is_public=true", who="root")).body["volume_types"][0]["id"]
        path = f"/brickyard/v1/types/{gold}/metadata"
        volume = await api.volume(volume_type="gold")
        assert volume["status"] == "available"
        added = await api("POST", path, who="root", json={"metadata": {"replicated": "ceph"}})
        assert (added.status, added.body["metadata"]) == (200, {"encrypted": "no", "replicated": "ceph"})
        assert (await api("POST", path, json={"metadata": {"a": "b"}})).status == 403
        assert (await api("DELETE", f"{path}/encrypted")).status == 403
        for bad in ({"a": 1}, {"a": "x" * 256}, {"k" * 256: "x"}, {}):
            assert (await api("POST", path, who="root", json={"metadata": bad})).status == 400
        for answer in (await api("GET", f"/types/{gold}"), await api("GET", "/types/default")):
            assert "metadata" not in answer.body["volume_type"]
        shown = (await api("GET", f"/types/{gold}", headers=OURS)).body["volume_type"]
        assert shown["metadata"] == {"encrypted": "no", "replicated": "ceph"}
        for wanted, names in (("ceph", ["gold"]), ("else", [])):
            listed = await api("GET", f"/types?metadata={{'replicated':'{wanted}'}}", headers=OURS)
            assert [item["name"] for item in listed.body["volume_types"]] == names
        assert (await api("GET", "/types?metadata=x", headers=OURS)).status == 400
        assert (await api("DELETE", f"{path}/encrypted", who="root")).status == 204
        assert (await api("DELETE", f"{path}/encrypted", who="root")).status == 404
        assert (await api("GET", path, who="looker")).body == {"metadata": {"replicated": "ceph"}}
        private = await a_type(api, "private", **{"os-volume-type-access:is_public": False})
        assert (await api("GET", path.replace(gold, private))).status == 404


async def test_what_a_project_has_of_a_closed_type_stays_as_it_is(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        gold = await a_type(api, "gold", **{"os-volume-type-access:is_public": False})
        access = {verb: {f"{verb}ProjectAccess": {"project": P1}} for verb in ("add", "remove")}
        assert (await api("POST", f"/types/{gold}/action", who="root", json=access["add"])).status == 202
        volume = (await api.volume(volume_type="gold"))["id"]
        assert (await api("POST", f"/types/{gold}/action", who="root", json=access["remove"])).status == 202
        assert (await api("GET", f"/volumes/{volume}")).body["volume"]["volume_type"] == "gold"
        for refused in (
            await api.act(volume, "os-extend", {"new_size": 2}),
            await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}}),
        ):
            assert (refused.status, "openstack volume type set --project" in said(refused)) == (413, True), refused.body
        assert (await api("GET", f"/volumes/{volume}")).body["volume"]["status"] == "available"
        assert (await api.act(volume, "os-retype", {"new_type": "__DEFAULT__"})).status == 202
        assert (await api.act(volume, "os-extend", {"new_size": 2})).status == 202
        await api.settled()
        assert (await api("DELETE", f"/volumes/{volume}")).status == 202
        await api.settled()


async def test_over_the_limit_of_a_type_the_command_that_raises_it_is_told(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await a_type(api, "gold")
        limit = {"quota_set": {"volumes_gold": 0}}
        assert (await api("PUT", f"/os-quota-sets/{P1}", who="root", json=limit)).status == 200
        refused = await api("POST", "/volumes", json={"volume": {"size": 1, "volume_type": "gold"}})
        command = "openstack quota set --volumes N --volume-type gold PROJECT"
        assert (refused.status, command in said(refused)) == (413, True), refused.body


async def test_only_shows_tell_the_qos_specs_of_a_type(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        made = (await api("POST", "/types", who="root", json={"volume_type": {"name": "t"}})).body["volume_type"]
        path = f"/types/{made['id']}"
        changed = (await api("PUT", path, who="root", json={"volume_type": {"name": "u"}})).body["volume_type"]
        shown = (await api("GET", path, who="root")).body["volume_type"]
        assert shown.keys() - {"qos_specs_id"} == made.keys()
        assert made.keys() - changed.keys() == {"os-volume-type-access:is_public"}
        assert "qos_specs_id" in shown
