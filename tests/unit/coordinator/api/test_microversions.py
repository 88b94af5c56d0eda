"""Each microversion of Block Storage that this release has something for: what a call gives below, and from it on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordinator.api.version import MAXIMUM
from tests.unit.coordinator.api import test_server_images as server_images
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.volumesite import Api, volume_api

SERVER = "11111111-1111-4111-8111-111111111111"
NOBODY = "99999999-2222-3333-4444-555555555555"
OF_OTHERS = {
    6: "consistency groups", 9: "backups", 11: "groups", 14: "groups", 16: "migration", 18: "backups", 19: "groups",
    20: "groups", 25: "groups", 29: "groups", 37: "backups", 38: "groups", 43: "backups", 51: "backups", 56: "backups",
    58: "groups",
}  # fmt: skip
"""What this release does not serve."""
NOTHING_TO_SEE = {26: "fields of clusters that replicate", 50: "says only that it can",
                  67: "true at every version"}  # fmt: skip


@dataclass
class Made:
    """What calls are about."""

    api: Api
    volume: str
    snapshot: str
    attachment: str
    pool: str


Look = Callable[[Made, int], Awaitable[Any]]


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    async with volume_api(tmp_path) as api:
        assert (await api("PUT", f"/os-quota-sets/{P1}", who="root", json={"quota_set": {"volumes": 50}})).status == 200
        volume = (await api.volume(name="one", metadata={"a": "b"}))["id"]
        body = {"snapshot": {"volume_id": volume, "name": "snap", "metadata": {"a": "b"}}}
        snapshot = (await api("POST", "/snapshots", json=body)).body["snapshot"]["id"]
        await api.settled()
        held = (await api.volume(name="held"))["id"]
        wanted = {"attachment": {"volume_uuid": held, "instance_uuid": SERVER}}
        attachment = (await api("POST", "/attachments", json=wanted)).body["attachment"]["id"]
        pools = (await api("GET", "/scheduler-stats/get_pools", who="root")).body["pools"]
        yield Made(api, volume, snapshot, attachment, pools[0]["name"])


def status(method: str, path: str, body: Any = None, who: str = "worker") -> Look:
    """Of one call; `{name}` in the path is one of `Made`."""

    async def look(made: Made, version: int) -> int:
        more = {} if body is None else {"json": filled(body, made)}
        return (await made.api(method, path.format(**vars(made)), who=who, version=version, **more)).status

    return look


def filled(part: Any, made: Made) -> Any:
    if isinstance(part, dict):
        return {name: filled(value, made) for name, value in part.items()}
    return getattr(made, part[1:-1]) if isinstance(part, str) and part[:1] == "{" else part


def shown(path: str, key: str, name: str, who: str = "worker") -> Look:
    """Whether what a GET answers has a field."""

    async def look(made: Made, version: int) -> bool:
        answer = await made.api("GET", path.format(**vars(made)), who=who, version=version)
        assert answer.status == 200, answer.body
        return name in answer.body[key]

    return look


def listed(path: str, key: str, who: str = "worker") -> Look:
    """How many a list has, or its status if that is no 200."""

    async def look(made: Made, version: int) -> int:
        answer = await made.api("GET", path.format(**vars(made)), who=who, version=version)
        return len(answer.body[key]) if answer.status == 200 else answer.status

    return look


def found(path: str, body: Any, who: str = "worker") -> Look:
    """Whether there is such an action: what it is about is not there, at any version."""

    async def look(made: Made, version: int) -> bool:
        answer = await made.api("POST", path, who=who, version=version, json=body)
        assert answer.status == 404, answer.body
        return "is not supported on this method" not in answer.body["itemNotFound"]["message"]

    return look


def refused(path: str, who: str = "worker") -> Look:
    """How a GET is refused."""

    async def look(made: Made, version: int) -> str:
        answer = await made.api("GET", path, who=who, version=version)
        assert answer.status == 400, answer.body
        return str(answer.body["badRequest"]["message"]).partition(":")[0]

    return look


async def _count(made: Made, version: int) -> bool:
    return "count" in (await made.api("GET", "/volumes?with_count=true", who="root", version=version)).body


async def _etag(made: Made, version: int) -> bool:
    return "Etag" in (await made.api("GET", f"/volumes/{made.volume}/metadata", version=version)).headers


async def _force(made: Made, version: int) -> int:
    """`force` is another rule's matter."""
    return (await made.api("DELETE", f"/volumes/{NOBODY}?force=maybe", version=version)).status


async def _pools(made: Made, version: int) -> int:
    answer = await made.api("GET", "/scheduler-stats/get_pools?name=nothing", who="root", version=version)
    return len(answer.body["pools"])


async def _pools_of_type(made: Made, version: int) -> int:
    path = f"/scheduler-stats/get_pools?volume-type={NOBODY}"
    return (await made.api("GET", path, who="root", version=version)).status


async def _summary(made: Made, version: int) -> bool:
    return "metadata" in (await made.api("GET", "/volumes/summary", version=version)).body["volume-summary"]


async def _limits(made: Made, version: int) -> int:
    """Of another project, which has nothing."""
    answer = await made.api("GET", f"/limits?project_id={'2' * 32}", who="root", version=version)
    return int(answer.body["limits"]["absolute"]["totalVolumesUsed"])


async def _state_of_service(made: Made, version: int) -> bool:
    answer = await made.api("GET", "/os-services?binary=cinder-volume", who="root", version=version)
    return "backend_state" in answer.body["services"][0]


async def _shared(made: Made, version: int) -> Any:
    """Of a volume that lies nowhere yet."""
    host = {"host": made.pool.partition("#")[0]}
    await made.api("PUT", "/os-services/disable", who="root", json=host)
    answer = await made.api("POST", "/volumes", json={"volume": {"size": 1}}, version=version)
    await made.api("PUT", "/os-services/enable", who="root", json=host)
    assert answer.status == 202, answer.body
    await made.api.settled()
    return answer.body["volume"]["shared_targets"]


async def _history_of_transfer(made: Made, version: int) -> bool:
    body = {"transfer": {"volume_id": made.volume}}
    answer = await made.api("POST", "/volume-transfers", json=body, version=version)
    assert answer.status == 202, answer.body
    offer = answer.body["transfer"]
    await made.api("DELETE", f"/volume-transfers/{offer['id']}", version=version)
    return "accepted" in offer


async def _pages_of_transfers(made: Made, version: int) -> int:
    body = {"transfer": {"volume_id": made.volume}}
    one = (await made.api("POST", "/volume-transfers", json=body)).body["transfer"]["id"]
    answer = await made.api("GET", f"/volume-transfers?marker={one}", version=version)
    await made.api("DELETE", f"/volume-transfers/{one}")
    return len(answer.body["transfers"])


async def _encrypted(api: Api, name: str) -> str:
    kind = await api("POST", "/types", who="root", json={"volume_type": {"name": name}})
    crypt = {"encryption": {"provider": "luks", "control_location": "front-end"}}
    type_id = kind.body["volume_type"]["id"]
    assert (await api("POST", f"/types/{type_id}/encryption", who="root", json=crypt)).status == 200
    return str((await api.volume(volume_type=type_id))["id"])


async def _encrypted_transfer(made: Made, version: int) -> int:
    body = {"transfer": {"volume_id": await _encrypted(made.api, f"given{version}")}}
    return (await made.api("POST", "/volume-transfers", json=body, version=version)).status


async def _key(made: Made, version: int) -> bool:
    volume = await _encrypted(made.api, f"key{version}")
    return "encryption_key_id" in (await made.api("GET", f"/volumes/{volume}", version=version)).body["volume"]


async def _used(api: Api) -> str:
    """A volume that a server uses."""
    volume = str((await api.volume())["id"])
    wanted = {"attachment": {"volume_uuid": volume, "connector": {"host": "host-a"}, "instance_uuid": SERVER}}
    attachment = (await api("POST", "/attachments", json=wanted)).body["attachment"]["id"]
    assert (await api("POST", f"/attachments/{attachment}/action", json={"os-complete": None})).status == 204
    return volume


async def _extended_in_use(made: Made, version: int) -> int:
    answer = await made.api.act(await _used(made.api), "os-extend", {"new_size": 2}, version=version)
    await made.api.settled()
    return answer.status


async def _snapshot_in_use(made: Made, version: int) -> int:
    """Without force."""
    body = {"snapshot": {"volume_id": await _used(made.api)}}
    answer = await made.api("POST", "/snapshots", json=body, version=version)
    await made.api.settled()
    return answer.status


async def _of_server_image(made: Made, version: int) -> int:
    image_id = await server_images.image(made.api, [server_images.disk(made.snapshot)])
    answer = await server_images.create(made.api, image_id, version=version)
    await made.api.settled()
    return answer.status


UPLOAD = {"os-volume_upload_image": {"image_name": "i", "visibility": "shared"}}
ACTION, COMPLETE = f"/volumes/{NOBODY}/action", f"/attachments/{NOBODY}/action"
READS: dict[int, tuple[Look, Any, Any]] = {
    1: (status("POST", ACTION, UPLOAD), 400, 404),
    2: (listed("/volumes?bootable=maybe", "volumes"), 0, 400),
    3: (status("GET", "/messages"), 404, 200),
    4: (listed("/volumes?glance_metadata={{'a':'b'}}", "volumes", "root"), 2, 0),
    5: (status("GET", "/messages?limit=abc"), 200, 400),
    7: (status("GET", "/clusters", who="root"), 404, 200),
    8: (status("GET", "/manageable_volumes?host=nothing", who="root"), 404, 400),
    10: (listed(f"/volumes?group_id={NOBODY}", "volumes"), 2, 0),
    12: (status("GET", "/volumes/summary"), 404, 200),
    13: (shown("/volumes/{volume}", "volume", "group_id"), False, True),
    15: (_etag, False, True),
    17: (refused("/os-volume-manage?cluster=nothing", "root"), "Host field is missing.", "Unable to find service"),
    21: (shown("/volumes/{volume}", "volume", "provider_id", "root"), False, True),
    22: (listed("/snapshots?metadata={{'a':'c'}}", "snapshots"), 1, 0),
    23: (_force, 404, 400),
    24: (status("POST", "/workers/cleanup", {}, "root"), 404, 202),
    27: (status("GET", "/attachments/{attachment}"), 404, 200),
    28: (_pools, 1, 0),
    30: (status("GET", "/snapshots?sort=name"), 400, 200),
    31: (status("GET", "/volumes?colour=red"), 200, 400),
    32: (status("PUT", "/os-services/get-log", {}, "root"), 404, 200),
    33: (status("GET", "/resource_filters"), 404, 200),
    34: (listed("/volumes?name~=ne", "volumes"), 400, 1),
    35: (_pools_of_type, 200, 404),
    36: (_summary, False, True),
    39: (_limits, 2, 0),
    40: (found(ACTION, {"revert": {"snapshot_id": NOBODY}}), False, True),
    41: (shown("/snapshots/{snapshot}", "snapshot", "user_id"), False, True),
    44: (found(COMPLETE, {"os-complete": None}), False, True),
    45: (_count, False, True),
    48: (shown("/volumes/{volume}", "volume", "shared_targets"), False, True),
    49: (_state_of_service, False, True),
    52: (listed("/types?extra_specs={{'multiattach':'x'}}", "volume_types"), 1, 0),
    54: (status("POST", "/attachments", {"attachment": {"volume_uuid": NOBODY, "mode": "ro"}}), 400, 404),
    55: (status("GET", "/volume-transfers"), 404, 200),
    60: (listed("/volumes?created_at=lt:2020-01-01T00:00:00", "volumes"), 2, 0),
    61: (shown("/volumes/{volume}", "volume", "cluster_name", "root"), False, True),
    62: (status("GET", "/default-types", who="root"), 404, 200),
    63: (shown("/volumes/{volume}", "volume", "volume_type_id"), False, True),
    65: (shown("/volumes/{volume}", "volume", "consumes_quota"), False, True),
    68: (found(ACTION, {"os-reimage": {"image_id": NOBODY}}), False, True),
    71: (found(ACTION, {"os-extend_volume_completion": {}}, "root"), False, True),
}  # fmt: skip
CHANGES: dict[int, tuple[Look, Any, Any]] = {
    42: (_extended_in_use, 400, 202),
    46: (_of_server_image, 400, 202),
    47: (status("POST", "/volumes", {"volume": {"size": 1, "backup_id": NOBODY}}), 202, 400),
    53: (status("POST", "/volumes", {"volume": {"size": 1, "colour": "red"}}), 202, 400),
    57: (_history_of_transfer, False, True),
    59: (_pages_of_transfers, 1, 0),
    64: (_key, False, True),
    66: (_snapshot_in_use, 400, 202),
    69: (_shared, True, None),
    70: (_encrypted_transfer, 400, 202),
}


def test_every_microversion_is_accounted_for() -> None:
    assert sorted([*READS, *CHANGES, *OF_OTHERS, *NOTHING_TO_SEE]) == list(range(1, MAXIMUM + 1))


async def test_below_each_and_from_it_on(made: Made) -> None:
    seen = {}
    for minor, (look, before, after) in [*READS.items(), *CHANGES.items()]:
        came = (await look(made, minor - 1), await look(made, minor))
        if came != (before, after):
            seen[minor] = came
    assert seen == {}
