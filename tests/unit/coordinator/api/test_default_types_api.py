"""Default volume types: the project's own before the site's, and none is pulled away from under a project."""

from __future__ import annotations

from pathlib import Path

from tests.unit.coordinator.api.apitoy import P1, P2
from tests.unit.coordinator.api.volumesite import Api, volume_api


async def a_type(api: Api, name: str, **more: object) -> str:
    answer = await api("POST", "/types", who="root", json={"volume_type": {"name": name, **more}})
    assert answer.status == 200, answer.body
    return str(answer.body["volume_type"]["id"])


def wanted(name: str) -> dict[str, dict[str, str]]:
    return {"default_type": {"volume_type": name}}


async def test_a_project_has_its_own_default(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        gold = await a_type(api, "gold")
        assert (await api("GET", f"/default-types/{P1}", who="root")).status == 404
        put = await api("PUT", f"/default-types/{P1}", who="root", json=wanted("gold"))
        assert (put.status, put.body) == (200, {"default_type": {"project_id": P1, "volume_type_id": gold}})
        assert (await api("GET", f"/default-types/{P1}", who="root")).body == put.body
        assert (await api("GET", "/default-types", who="root")).body == {"default_types": [put.body["default_type"]]}
        assert (await api("GET", "/types/default")).body["volume_type"]["name"] == "gold"
        assert (await api("GET", "/types/default", who="other")).body["volume_type"]["name"] == "__DEFAULT__"
        assert (await api.volume())["volume_type"] == "gold"
        assert (await api.volume(who="other"))["volume_type"] == "__DEFAULT__"
        assert (await api.volume(volume_type=None))["volume_type"] == "gold", "null is as if nothing were said"
        assert (await api.volume(volume_type="__DEFAULT__"))["volume_type"] == "__DEFAULT__"
        assert (await api("DELETE", f"/types/{gold}", who="root")).status == 400
        assert (await api("DELETE", f"/default-types/{P1}", who="root")).status == 204
        assert (await api("DELETE", f"/default-types/{P1}", who="root")).status == 204
        assert (await api.volume())["volume_type"] == "__DEFAULT__"


async def test_what_is_refused(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        private = await a_type(api, "private", **{"os-volume-type-access:is_public": False})
        path = f"/default-types/{P2}"
        assert (await api("PUT", path, who="root", json=wanted("none"))).status == 400
        assert (await api("PUT", path, who="root", json=wanted("private"))).status == 400
        granted = {"addProjectAccess": {"project": P2}}
        assert (await api("POST", f"/types/{private}/action", who="root", json=granted)).status == 202
        assert (await api("PUT", path, who="root", json=wanted("private"))).status == 200
        assert (await api("PUT", path, json=wanted("private"))).status == 403
        assert (await api("GET", path, who="root", version=61)).status == 404


async def test_a_filter_by_a_hidden_key_tells_nothing(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        specs = {"volume_backend_name": "Secret", "RESKEY:availability_zones": "az1, az2"}
        await a_type(api, "gold", extra_specs=specs)
        hidden, zone = "{'volume_backend_name':'Secret'}", "{'RESKEY:availability_zones':'az2'}"
        for who, query, found in (
            ("worker", hidden, []), ("root", hidden, ["gold"]), ("worker", zone, ["gold"]), ("root", zone, ["gold"]),
        ):  # fmt: skip
            listed = (await api("GET", f"/types?extra_specs={query}", who=who)).body["volume_types"]
            assert [item["name"] for item in listed] == found
        visible = (await api("GET", "/types")).body["volume_types"][0]["extra_specs"]
        assert visible == {"RESKEY:availability_zones": "az1, az2"}
