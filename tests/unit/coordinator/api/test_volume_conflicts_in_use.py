"""Two calls at once on one volume that is in use, for each pair of what ends, changes or takes it: nobody is told a
success that did not come, and the volume, its attachments and what is counted agree afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.lifecycle.volume import VOLUME
from coordinator.state import operations, usage
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.test_volume_conflicts import Act, act, attachment, connector, delete, server, transfer
from tests.unit.coordinator.api.test_volume_connections import types
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

pytestmark = pytest.mark.timeout(1200)


async def end(api: Api, volume: str, number: int) -> Answered:
    return await api("DELETE", f"/attachments/{api.held[volume]}", who="root")  # type: ignore[attr-defined]


async def snapshot(api: Api, volume: str, number: int) -> Answered:
    return await api("POST", "/snapshots", who="root", json={"snapshot": {"volume_id": volume}})


ENDING: dict[str, Act] = {
    "os-begin_detaching": act("os-begin_detaching"),
    "os-roll_detaching": act("os-roll_detaching"),
    "os-detach": act("os-detach", lambda api, volume: {}),
    "os-force_detach": act("os-force_detach", lambda api, volume: {}),
    "os-terminate_connection": act("os-terminate_connection", connector),
    "DELETE attachment": end,
}
CHANGING: dict[str, Act] = {
    "os-extend": act("os-extend", lambda api, volume: {"new_size": 2}),
    "os-retype": act("os-retype", lambda api, volume: {"new_type": "other"}),
    "POST snapshots": snapshot,
}
# What only a free volume can be for: while it is in use each is refused, once it is not, one of them may follow.
FREE: dict[str, Act] = {
    "os-reserve": act("os-reserve"),
    "os-unmanage": act("os-unmanage"),
    "os-attach": act("os-attach", lambda api, volume: {"instance_uuid": server(), "mountpoint": "/dev/vdc"}),
    "DELETE": delete,
    "POST attachments": attachment,
    "POST volume-transfers": transfer,
}
ACTS = {**ENDING, **CHANGING, **FREE}
# Of two of these the second finds that there is nothing left to do, and is told so.
ONCE = {"os-begin_detaching", "DELETE attachment", "os-extend", "os-retype"}
EXCLUSIVE = {frozenset({name}) for name in ONCE} | {frozenset({"os-begin_detaching", "os-extend"})}
DETACHES = {"os-detach", "os-force_detach", "DELETE attachment"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with volume_api(tmp_path) as made:
        made.held = {}  # type: ignore[attr-defined]
        await types(made, "other")
        await made("PUT", f"/os-quota-sets/{P1}", who="root", json={"quota_set": {"volumes": -1, "gigabytes": -1,
                   "snapshots": -1}})  # fmt: skip
        yield made


async def in_use(api: Api) -> str:
    volume = str((await api.volume())["id"])
    body = {"instance_uuid": server(), "mountpoint": "/dev/vdb"}
    assert (await api.act(volume, "os-attach", body, who="root")).status == 202
    (made,) = (await api("GET", f"/attachments?volume_id={volume}", who="root")).body["attachments"]
    api.held[volume] = made["id"]  # type: ignore[attr-defined]
    return volume


async def at_once(api: Api, volume: str, *acts: Act) -> list[Answered]:
    """Both answers; hosts do nothing before both are there."""
    for wire in api.here.hosts.wires.values():
        wire.held = asyncio.Event()
    both = await asyncio.gather(*(one(api, volume, number) for number, one in enumerate(acts)))
    for wire in api.here.hosts.wires.values():
        assert wire.held is not None
        wire.held.set()
    await api.settled()
    return both


async def agrees(api: Api, volume: str, won: set[str]) -> None:
    """What is shown of the volume is what the winners were told."""
    assert await api.here.db.read(lambda conn: operations.listing(conn, active=True)) == []
    shown = await api("GET", f"/volumes/{volume}", who="root")
    live = (await api("GET", f"/attachments?volume_id={volume}", who="root")).body["attachments"]
    if shown.status == 404:
        assert won & {"DELETE", "os-unmanage"}, won
        assert live == []
        return
    found: dict[str, Any] = shown.body["volume"]
    status = found["status"]
    assert status in VOLUME.stable - {"error", "error_deleting"}
    assert (api.held[volume] in {one["id"] for one in live}) == (not won & DETACHES)  # type: ignore[attr-defined]
    assert (status in {"in-use", "detaching"}) == any(one["status"] == "attached" for one in live), (status, live)
    assert status != "detaching" or "os-begin_detaching" in won
    assert (found["size"], found["volume_type"] == "other") == (2 if "os-extend" in won else 1, "os-retype" in won)


@pytest.mark.parametrize(
    "first", [name if name in {"os-detach", "os-extend"} else pytest.param(name, marks=pytest.mark.slow)
              for name in ACTS],
)  # fmt: skip
async def test_no_pair_leaves_a_volume_in_use_half_done(api: Api, first: str) -> None:
    names = list(ACTS)
    for second in names[names.index(first) :]:
        volume = await in_use(api)
        both = await at_once(api, volume, ACTS[first], ACTS[second])
        told = dict(zip((first, f"{second}'"), (answer.status for answer in both), strict=True))
        assert all(status < 300 or status in {400, 404, 409} for status in told.values()), (told, both)
        won = {name.removesuffix("'") for name, status in told.items() if status < 300}
        count = sum(status < 300 for status in told.values())
        if {first, second} <= FREE.keys():
            assert count == 0, told
        elif frozenset({first, second}) in EXCLUSIVE:
            assert count == 1, told
        elif not {first, second} & FREE.keys():
            assert count >= 1, told
        await agrees(api, volume, won)
    counted = await api.here.db.read(lambda conn: (usage.by_type(conn, P1), usage.counted(conn, P1)))
    assert counted[0] == counted[1]


@pytest.mark.parametrize("ending", sorted(DETACHES))
async def test_what_is_detached_while_it_grows_is_free_afterwards(api: Api, ending: str) -> None:
    volume = await in_use(api)

    async def detached_then(api: Api, volume: str, number: int) -> Answered:
        assert (await CHANGING["os-extend"](api, volume, number)).status == 202
        return await ENDING[ending](api, volume, number)

    (answer,) = await at_once(api, volume, detached_then)
    assert answer.status in {200, 202}
    await agrees(api, volume, {"os-extend", ending})
    assert (await api("GET", f"/volumes/{volume}", who="root")).body["volume"]["status"] == "available"
