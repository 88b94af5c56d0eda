"""What changes of types and QoS specs say: in the list of events, to whom, and on a bus in Cinder's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.notifications import cinder_words
from coordinator.notifications.event import Event
from coordinator.state import events
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.volumesite import Api, volume_api

TYPE, QOS = "volume_type", "qos_specs"


async def told(api: Api) -> list[Event]:
    """All events that belong to no project."""
    await events.numbered(api.here.db)
    return [Event.of(row) for row in await api.here.db.read(lambda conn: events.after(conn, 0, "", 1000))]


async def a_life_of_a_type(api: Api) -> str:
    async def call(method: str, path: str, json: Any = None, status: int = 200) -> Any:
        more = {"json": json} if json is not None else {}
        answer = await api(method, path, who="root", **more)
        assert answer.status == status, (method, path, answer.body)
        return answer.body

    made = {"name": "gold", "extra_specs": {"a": "1"}, "os-volume-type-access:is_public": False}
    type_id = str((await call("POST", "/types", {"volume_type": made}))["volume_type"]["id"])
    one = f"/types/{type_id}"
    await call("PUT", one, {"volume_type": {"description": "fast"}})
    await call("POST", f"{one}/extra_specs", {"extra_specs": {"b": "2"}})
    await call("PUT", f"{one}/extra_specs/b", {"b": "3"})
    await call("DELETE", f"{one}/extra_specs/b", status=202)
    await call("POST", f"{one}/action", {"addProjectAccess": {"project": P1}}, 202)
    await call("POST", f"{one}/action", {"removeProjectAccess": {"project": P1}}, 202)
    crypt = (await call("POST", f"{one}/encryption", {"encryption": {"provider": "luks"}}))["encryption"]
    await call("PUT", f"{one}/encryption/{crypt['encryption_id']}", {"encryption": {"key_size": 512}})
    await call("DELETE", f"{one}/encryption/{crypt['encryption_id']}", status=202)
    await call("POST", f"/brickyard/v1/types/{type_id}/metadata", {"metadata": {"c": "d"}})
    await call("DELETE", f"/brickyard/v1/types/{type_id}/metadata/c", status=204)
    qos = (await call("POST", "/qos-specs", {"qos_specs": {"name": "slow", "read_iops_sec": "5"}}))["qos_specs"]["id"]
    await call("PUT", f"/qos-specs/{qos}", {"qos_specs": {"write_iops_sec": "6"}})
    await call("GET", f"/qos-specs/{qos}/associate?vol_type_id={type_id}", status=202)
    await call("GET", f"/qos-specs/{qos}/disassociate?vol_type_id={type_id}", status=202)
    await call("GET", f"/qos-specs/{qos}/disassociate_all", status=202)
    await call("PUT", f"/qos-specs/{qos}/delete_keys", {"keys": ["write_iops_sec"]}, 202)
    await call("DELETE", f"/qos-specs/{qos}", status=202)
    await call("DELETE", one, status=202)
    return type_id


async def test_each_change_is_told_once_in_cinders_words(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        type_id = await a_life_of_a_type(api)
        found = await told(api)
        assert [event.type for event in found] == [
            "volume_type.create", "volume_type.update", "volume_type_extra_specs.create",
            "volume_type_extra_specs.update", "volume_type_extra_specs.delete", "volume_type_project.access.add",
            "volume_type_project.access.remove", "volume_type_encryption.create", "volume_type_encryption.update",
            "volume_type_encryption.delete", "volume_type_metadata.create", "volume_type_metadata.delete",
            "qos_specs.create", "qos_specs.update", "qos_specs.associate", "qos_specs.disassociate",
            "qos_specs.disassociate_all", "qos_specs.delete_keys", "qos_specs.delete", "volume_type.delete",
        ]  # fmt: skip
        by_type = {event.type: event for event in found}
        changed = by_type["volume_type.update"]
        assert cinder_words.named(changed) == ("volume_type.update", "volumeType.brickyard")
        body = cinder_words.payload(changed)["volume_types"]
        assert (body["id"], body["description"], body["extra_specs"]) == (type_id, "fast", {"a": "1"})
        assert cinder_words.payload(by_type["volume_type_project.access.add"]) == {
            "volume_type_id": type_id, "project_id": P1,
        }  # fmt: skip
        assert cinder_words.named(by_type["qos_specs.create"]) == ("qos_specs.create", "QoSSpecs.brickyard")
        assert cinder_words.payload(by_type["qos_specs.create"])["specs"] == {
            "read_iops_sec": "5", "consumer": "back-end",
        }  # fmt: skip
        assert cinder_words.payload(by_type["qos_specs.associate"])["type_id"] == type_id
        assert cinder_words.named(by_type["volume_type_metadata.create"]) is None


async def test_what_is_refused_tells_nothing(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        default = (await api("GET", "/types/default")).body["volume_type"]["id"]
        for method, path, body in (
            ("POST", "/types", {"volume_type": {"name": "__DEFAULT__"}}),
            ("DELETE", f"/types/{default}", None),
            ("POST", f"/types/{default}/action", {"addProjectAccess": {"project": P1}}),
            ("DELETE", f"/types/{default}/extra_specs/none", None),
            ("POST", "/qos-specs", {"qos_specs": {"name": "x", "read_iops_sec": "many"}}),
        ):
            assert (await api(method, path, who="root", **({"json": body} if body else {}))).status >= 400, path
        assert await told(api) == []


async def test_only_who_may_see_all_events_sees_them(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await a_life_of_a_type(api)
        path = "/brickyard/v1/events"
        for who, query, status, seen in (
            ("worker", "", 200, False), ("worker", "?all_projects=1", 403, False), ("root", "", 200, False),
            ("root", "?all_projects=1", 200, True), ("system", "", 200, True),
        ):  # fmt: skip
            answer = await api("GET", f"{path}{query}", who=who)
            assert answer.status == status, (who, answer.body)
            kinds = {event["resource_type"] for event in answer.body.get("events", ())}
            assert ({TYPE, QOS} <= kinds) == seen, (who, query)
