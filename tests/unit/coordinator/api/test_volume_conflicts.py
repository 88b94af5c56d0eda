"""Two conflicting calls at once on one volume, for every pair that the route table has: exactly one wins."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from coordinator.api.resources import all_resources
from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.lifecycle.volume import VOLUME
from coordinator.state import operations
from coordinator.state.tables.fleet import hosts
from coordinator.state.transition import move
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.test_volume_encryption import encrypted_type
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

pytestmark = pytest.mark.timeout(1200)
Act = Callable[[Api, str, int], Any]
ACTION = "/volumes/{volume_id}/action"
_numbers = itertools.count()


def server() -> str:
    return f"{next(_numbers):08d}-2222-3333-4444-555555555555"


def act(name: str, body: Callable[[Api, str], Any] = lambda api, volume: None, who: str = "root") -> Act:
    async def call(api: Api, volume: str, number: int) -> Answered:
        return await api.act(volume, name, body(api, volume), who=who)

    return call


async def delete(api: Api, volume: str, number: int) -> Answered:
    return await api("DELETE", f"/volumes/{volume}", who="root")


async def cascade(api: Api, volume: str, number: int) -> Answered:
    return await api("DELETE", f"/volumes/{volume}?cascade=true", who="root")


async def attachment(api: Api, volume: str, number: int) -> Answered:
    wanted = {"attachment": {"volume_uuid": volume, "instance_uuid": server()}}
    return await api("POST", "/attachments", who="root", json=wanted)


async def transfer(api: Api, volume: str, number: int) -> Answered:
    return await api("POST", "/volume-transfers", who="root", json={"transfer": {"volume_id": volume}})


def connector(api: Api, volume: str) -> Any:
    return {"connector": {"host": "host-a", "initiator": f"iqn.2026-01.org.example:{next(_numbers)}"}}


# What takes a free volume for itself.
TAKING: dict[str, Act] = {
    "os-extend": act("os-extend", lambda api, volume: {"new_size": 2}),
    "os-reserve": act("os-reserve"),
    "os-initialize_connection": act("os-initialize_connection", connector),
    "os-attach": act("os-attach", lambda api, volume: {"instance_uuid": server(), "mountpoint": "/dev/vdb"}),
    "os-unmanage": act("os-unmanage"),
    "os-volume_upload_image": act("os-volume_upload_image", lambda api, volume: {"image_name": "x"}),
    "os-reimage": act("os-reimage", lambda api, volume: {"image_id": IMAGE}),
    "os-retype": act("os-retype", lambda api, volume: {"new_type": "secret", "migration_policy": "on-demand"}),
    "revert": act("revert", lambda api, volume: {"snapshot_id": api.taken[volume]}),  # type: ignore[attr-defined]
    "DELETE": delete,
    "DELETE cascade": cascade,
    "POST attachments": attachment,
    "POST volume-transfers": transfer,
}
# What changes no status, or is for a volume in use (`test_volume_conflicts_in_use`).
OTHERS = {
    "os-extend_volume_completion", "os-reset_status", "os-set_image_metadata", "os-unset_image_metadata",
    "os-show_image_metadata", "os-set_bootable", "os-update_readonly_flag", "os-force_delete",
    "os-unreserve", "os-terminate_connection", "os-begin_detaching", "os-roll_detaching", "os-detach",
    "os-force_detach",
}  # fmt: skip
# One may follow the other: both can be right.
FOLLOWING = {
    frozenset(pair)
    for pair in (("os-reserve", "os-initialize_connection"), ("os-reserve", "os-attach"),
                 ("os-initialize_connection", "os-attach"), ("os-attach", "os-extend"))
}  # fmt: skip
IMAGE = "77777777-2222-3333-4444-555555555555"


def test_no_action_of_the_table_is_forgotten() -> None:
    routes = [route for resource in all_resources() if resource.prefix == "/v3" for route in resource.routes]
    served = {route.action for route in routes if route.path == ACTION}
    assert served == OTHERS | {name for name in TAKING if not name.isupper() and " " not in name}


def an_image(conn: Connection) -> None:
    conn.execute(update(hosts).where(hosts.c.id == "host-a").values(keeps_images=True, reachable=True))
    catalog.create(conn, Caller(P1), {"disk_format": "raw", "container_format": "bare"}, image_id=IMAGE)
    move(conn, "image", IMAGE, "upload", host_id="host-a")
    move(conn, "image", IMAGE, "uploaded", size=512)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with volume_api(tmp_path) as made:
        await made("PUT", f"/os-quota-sets/{P1}", who="root", json={"quota_set": {"volumes": -1, "gigabytes": -1,
                   "snapshots": -1}})  # fmt: skip
        await made.here.db.write(an_image)
        await encrypted_type(made)
        yield made


@pytest.mark.parametrize(
    "first",
    [name if name in {"os-extend", "os-unmanage"} else pytest.param(name, marks=pytest.mark.slow) for name in TAKING],
)
async def test_exactly_one_wins(api: Api, first: str) -> None:
    api.taken = {}  # type: ignore[attr-defined]
    names = list(TAKING)
    for second in names[names.index(first) :]:
        volume = (await api.volume())["id"]
        if "revert" in {first, second} or "DELETE cascade" in {first, second}:
            taken = await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})
            await api.settled()
            api.taken[volume] = taken.body["snapshot"]["id"]  # type: ignore[attr-defined]
        for wire in api.here.hosts.wires.values():
            wire.held = asyncio.Event()
        both = await asyncio.gather(TAKING[first](api, volume, 0), TAKING[second](api, volume, 1))
        for wire in api.here.hosts.wires.values():
            assert wire.held is not None
            wire.held.set()
        won = [answer for answer in both if answer.status < 300]
        refused = [answer for answer in both if answer.status >= 300]
        most = 2 if frozenset({first, second}) in FOLLOWING else 1
        assert 1 <= len(won) <= most, (first, second, [(answer.status, answer.body) for answer in both])
        assert all(answer.status in {400, 404, 409} for answer in refused), (first, second, refused)
        await api.settled()
        assert await api.here.db.read(lambda conn: operations.listing(conn, active=True)) == []
        shown = await api("GET", f"/volumes/{volume}", who="root")
        status = shown.body["volume"]["status"] if shown.status == 200 else "deleted"
        assert status in VOLUME.stable - {"error", "error_deleting"}, (first, second, status)
