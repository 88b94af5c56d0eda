"""Calls that make the API issue every query it has: for tests that look at the plans of them all."""

from __future__ import annotations

import re

from agent.base.ids import new_id
from coordinator.api.resources import all_resources
from coordinator.api.route import V3, Route
from coordinator.api.v3.attachments import ATTACHMENTS
from coordinator.api.v3.messages import MESSAGES
from coordinator.api.v3.snapshots import SNAPSHOTS
from coordinator.api.v3.transfers import TRANSFERS
from coordinator.api.v3.volume_filters import VOLUMES
from tests.unit.coordinator.api.volumesite import Api

GROWING = (
    "volumes", "volume_metadata", "volume_admin_metadata", "volume_image_metadata", "snapshots", "snapshot_metadata",
    "attachments", "generations", "operations", "events", "messages", "issues", "images", "image_properties", "secrets",
    "transfers",
)  # fmt: skip
LISTS = {
    "/volumes": VOLUMES, "/volumes/detail": VOLUMES, "/snapshots": SNAPSHOTS, "/snapshots/detail": SNAPSHOTS,
    "/attachments": ATTACHMENTS, "/volume-transfers/detail": TRANSFERS, "/messages": MESSAGES,
}  # fmt: skip
VALUES = {
    "metadata": '{"a":"b"}', "image_metadata": '{"a":"b"}', "glance_metadata": '{"a":"b"}', "bootable": "true",
    "multiattach": "true", "consumes_quota": "true", "created_at": "gt:2026-01-01T00:00:00",
    "updated_at": "lt:2026-01-01T00:00:00", "size": "1", "volume_size": "1",
}  # fmt: skip


def paths(route: Route, prefix: str) -> list[str]:
    """The call with ids that are not there, and with each of its parameters alone."""
    path = re.sub(r"\{[a-z_]+\}", lambda _: new_id(), route.path)
    full = path if prefix == V3 else f"{prefix}{path}"
    return [full, *(f"{full}?{name}=x" for name in route.query)]


async def everything_is_read(api: Api) -> None:
    for resource in all_resources():
        if not resource.prefix.startswith((V3, "/brickyard")):
            continue
        for route in resource.routes:
            if route.method == "GET" and not route.streams:
                for who in ("worker", "root"):
                    for path in paths(route, resource.prefix):
                        await api("GET", path, who=who)


async def every_list_is_filtered_and_sorted(api: Api) -> None:
    for path, listing in LISTS.items():
        for who, everybody in (("worker", ""), ("root", ""), ("root", "&all_tenants=1")):
            for name in listing.filters:
                answer = await api("GET", f"{path}?{name}={VALUES.get(name, 'x')}{everybody}&limit=2", who=who)
                assert answer.status in {200, 400}, answer.body
            for name in listing.sort_keys:
                assert (await api("GET", f"{path}?sort={name}{everybody}&limit=2", who=who)).status == 200
            first = await api("GET", f"{path}?limit=1{everybody}", who=who)
            if links := first.body.get(listing.links):
                again = links[0]["href"].partition("/v3")[2]
                assert (await api("GET", again, who=who)).status == 200
        assert (await api("GET", f"{path}?with_count=true" if listing.counted else path)).status == 200


async def a_life(api: Api) -> None:
    """What changes rows, too."""
    made = await api("POST", "/types", who="root", json={"volume_type": {"name": "secret"}})
    type_id = made.body["volume_type"]["id"]
    crypt = f"/types/{type_id}/encryption"
    await api("POST", crypt, who="root", json={"encryption": {"provider": "luks"}})
    volume = await api.volume(metadata={"a": "b"}, volume_type="secret")
    volume_id = volume["id"]
    await api("PUT", f"/volumes/{volume_id}", json={"volume": {"name": "new"}})
    await api("POST", f"/volumes/{volume_id}/metadata", json={"metadata": {"c": "d"}})
    await api("DELETE", f"/volumes/{volume_id}/metadata/c")
    await api.act(volume_id, "os-extend", {"new_size": 2})
    await api.settled()
    await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume_id, "metadata": {"a": "b"}}})
    await api.settled()
    copy = await api.volume(source_volid=volume_id, size=2)
    await api("DELETE", f"/volumes/{copy['id']}")
    body = {"attachment": {"volume_uuid": volume_id, "connector": {"host": "host-a"}}}
    attached = (await api("POST", "/attachments", json=body)).body["attachment"]["id"]
    await api("POST", f"/attachments/{attached}/action", json={"os-complete": None})
    await api("DELETE", f"/attachments/{attached}")
    offer = await api("POST", "/volume-transfers", json={"transfer": {"volume_id": volume_id}})
    transfer = offer.body["transfer"]
    accept = {"accept": {"auth_key": transfer["auth_key"]}}
    await api("POST", f"/volume-transfers/{transfer['id']}/accept", who="other", json=accept)
    for verb in ("os-reset_status", "os-force_delete", "os-reserve", "os-unreserve", "os-retype"):
        await api.act(volume_id, verb, {"status": "available", "new_type": type_id}, who="root")
    await api.settled()
    await api("DELETE", f"/volumes/{volume_id}?cascade=True", who="other")
    await api.settled()
    await api("DELETE", f"/types/{type_id}", who="root")
    await api("GET", "/os-hosts/host-a@files", who="root")


async def every_call(api: Api) -> None:
    """All of it."""
    await a_life(api)
    await everything_is_read(api)
    await every_list_is_filtered_and_sorted(api)
