"""QoS specs over HTTP: all calls, and the limits that reach whoever uses a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.state.qos_limits import for_size
from tests.unit.coordinator.api.test_volume_exports import SERVICE, Table, connected, reserved
from tests.unit.coordinator.api.volumesite import Api, volume_api


async def made(api: Api, name: str = "fast", **values: Any) -> str:
    answer = await api("POST", "/qos-specs", who="root", json={"qos_specs": {"name": name, **values}})
    assert answer.status == 200, answer.body
    assert answer.body["links"][0]["rel"] == "self"
    return str(answer.body["qos_specs"]["id"])


async def a_type(api: Api, name: str = "gold") -> str:
    answer = await api("POST", "/types", who="root", json={"volume_type": {"name": name}})
    return str(answer.body["volume_type"]["id"])


async def test_qos_specs_from_birth_to_end(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        qos = await made(api, total_iops_sec=500, custom="x")
        one = f"/qos-specs/{qos}"
        shown = (await api("GET", one, who="root")).body["qos_specs"]
        assert shown == {
            "id": qos, "name": "fast", "consumer": "back-end", "specs": {"custom": "x", "total_iops_sec": "500"},
        }  # fmt: skip
        assert (await api("POST", "/qos-specs", who="root", json={"qos_specs": {"name": "fast"}})).status == 409
        changed = await api("PUT", one, who="root", json={"qos_specs": {"consumer": "both", "custom": "y"}})
        assert (changed.status, changed.body) == (200, {"qos_specs": {"consumer": "both", "custom": "y"}})
        assert (await api("PUT", f"{one}/delete_keys", who="root", json={"keys": ["custom", "none"]})).status == 404
        assert (await api("PUT", f"{one}/delete_keys", who="root", json={"keys": ["custom"]})).status == 202
        listed = (await api("GET", "/qos-specs", who="root")).body
        assert listed == {"qos_specs": [{**shown, "consumer": "both", "specs": {"total_iops_sec": "500"}}]}
        type_id = await a_type(api)
        assert (await api("GET", f"{one}/associate", who="root")).status == 400
        assert (await api("GET", f"{one}/associate?vol_type_id={type_id}", who="root")).status == 202
        assert (await api("GET", f"{one}/associations", who="root")).body == {
            "qos_associations": [{"association_type": "volume_type", "name": "gold", "id": type_id}]
        }
        assert (await api("GET", f"/types/{type_id}", who="root")).body["volume_type"]["qos_specs_id"] == qos
        other = await made(api, "slow")
        refused = await api("GET", f"/qos-specs/{other}/associate?vol_type_id={type_id}", who="root")
        assert refused.status == 400
        assert (await api("DELETE", one, who="root")).status == 400
        assert (await api("GET", f"{one}/disassociate?vol_type_id={type_id}", who="root")).status == 202
        await api("GET", f"{one}/associate?vol_type_id={type_id}", who="root")
        assert (await api("GET", f"{one}/disassociate_all", who="root")).status == 202
        await api("GET", f"{one}/associate?vol_type_id={type_id}", who="root")
        assert (await api("DELETE", f"{one}?force=True", who="root")).status == 202
        assert (await api("GET", one, who="root")).status == 404
        assert (await api("GET", f"/types/{type_id}", who="root")).body["volume_type"]["qos_specs_id"] is None


@pytest.mark.parametrize(
    "values", [{"consumer": "nobody"}, {"total_iops_sec": "many"}, {"total_iops_sec_per_gb": -1}, {"id": "x"},
               {"a" * 256: "x"}, {"x": "a" * 256}, {"x": None}, {"name": ""}],
)  # fmt: skip
async def test_bad_values_change_nothing(tmp_path: Path, values: dict[str, Any]) -> None:
    async with volume_api(tmp_path) as api:
        answer = await api("POST", "/qos-specs", who="root", json={"qos_specs": {"name": "q", **values}})
        assert answer.status == 400, answer.body
        assert (await api("GET", "/qos-specs", who="root")).body == {"qos_specs": []}


async def test_users_do_not_see_them(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        qos = await made(api)
        for method, path, body in (
            ("GET", "/qos-specs", None), ("GET", f"/qos-specs/{qos}", None), ("DELETE", f"/qos-specs/{qos}", None),
            ("POST", "/qos-specs", {"qos_specs": {"name": "mine"}}),
        ):  # fmt: skip
            assert (await api(method, path, json=body)).status == 403


async def test_pages(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        for name in ("a", "b", "c"):
            await made(api, name)
        first = (await api("GET", "/qos-specs?limit=2&sort=name:asc", who="root")).body
        assert [item["name"] for item in first["qos_specs"]] == ["a", "b"]
        path = first["qos_specs_links"][0]["href"].partition("/v3")[2]
        second = (await api("GET", path, who="root")).body
        assert [item["name"] for item in second["qos_specs"]] == ["c"]


@pytest.mark.parametrize(
    ("specs", "size", "limits"),
    [
        ({"total_iops_sec_per_gb": "30"}, 20, {"total_iops_sec": "600"}),
        ({"total_iops_sec_per_gb": "30"}, 40, {"total_iops_sec": "1200"}),
        ({"total_iops_sec_per_gb": "30", "total_iops_sec_per_gb_min": "100"}, 1, {"total_iops_sec": "100"}),
        ({"total_iops_sec_per_gb": "30", "total_iops_sec_max": "500"}, 40, {"total_iops_sec": "500"}),
        ({"total_iops_sec_per_gb": "30", "total_iops_sec_max": "500"}, 2, {"total_iops_sec": "60"}),
        (
            {"total_iops_sec": "60", "total_iops_sec_max": "500"},
            2,
            {"total_iops_sec": "60", "total_iops_sec_max": "500"},
        ),
        ({"read_bytes_sec": "7", "read_bytes_sec_per_gb": "2"}, 3, {"read_bytes_sec": "6"}),
        ({"anything": "x"}, 3, {"anything": "x"}),
    ],
)
def test_limits_per_gib(specs: dict[str, str], size: int, limits: dict[str, str]) -> None:
    assert for_size(specs, size) == limits


@pytest.mark.parametrize(("consumer", "expected"), [("front-end", {"total_iops_sec": "60"}), ("back-end", None)])
async def test_limits_come_with_the_connection(tmp_path: Path, consumer: str, expected: Any) -> None:
    async with volume_api(tmp_path) as api:
        qos = await made(api, consumer=consumer, total_iops_sec_per_gb=30)
        type_id = await a_type(api)
        await api("GET", f"/qos-specs/{qos}/associate?vol_type_id={type_id}", who="root")
        volume = await api.volume(size=2, volume_type="gold")
        body = {"volume_uuid": volume["id"], "connector": {"host": "host-a"}}
        answer = await api("POST", "/attachments", json={"attachment": body})
        assert answer.status == 200, answer.body
        assert answer.body["attachment"]["connection_info"]["qos_specs"] == expected
        await api("DELETE", f"/attachments/{answer.body['attachment']['id']}")
        older = await api.act(volume["id"], "os-initialize_connection", {"connector": {"host": "host-a"}})
        assert older.status == 200, older.body
        assert older.body["connection_info"]["data"]["qos_specs"] == expected


@pytest.mark.parametrize(("consumer", "expected"), [("both", "60"), ("back-end", None)])
async def test_limits_come_to_other_hosts_and_are_of_the_size_at_each_attach(
    tmp_path: Path, consumer: str, expected: Any
) -> None:
    async with volume_api(tmp_path, targets={"iscsi": Table()}) as api:
        qos = await made(api, consumer=consumer, total_iops_sec_per_gb=30, total_iops_sec_max=100)
        type_id = await a_type(api)
        await api("GET", f"/qos-specs/{qos}/associate?vol_type_id={type_id}", who="root")
        volume = (await api.volume(size=2, volume_type="gold"))["id"]
        mine = await reserved(api, volume)
        info = await connected(api, mine, "far")
        told = info["qos_specs"]
        assert (info["driver_volume_type"], told) == ("iscsi", expected and {"total_iops_sec": expected})
        assert (await api("POST", f"/attachments/{mine}/action", json={"os-complete": None})).status == 204
        assert (await api.act(volume, "os-extend", {"new_size": 4})).status == 202
        await api.settled()
        kept = (await api("GET", f"/attachments/{mine}")).body["attachment"]["connection_info"]["qos_specs"]
        assert kept == told
        assert (await api("DELETE", f"/attachments/{mine}", headers=SERVICE)).status == 200
        again = (await connected(api, await reserved(api, volume), "far"))["qos_specs"]
        assert again == (expected and {"total_iops_sec": "100"})
