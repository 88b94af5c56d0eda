"""Two calls at once on one volume, where one copies it, ends it by force, gives it another key, attaches it to a host
of the site or says another status of it; and on an offer. Nobody is told a success that did not come, nothing is left
at work or counted wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.lifecycle.volume import VOLUME
from coordinator.state import operations, usage
from tests.unit.coordinator.api.apitoy import P1, P2
from tests.unit.coordinator.api.test_volume_conflicts import TAKING, Act, act, an_image, delete
from tests.unit.coordinator.api.test_volume_conflicts_in_use import snapshot
from tests.unit.coordinator.api.test_volume_encryption import encrypted_type
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

pytestmark = pytest.mark.timeout(1200)
BRICKYARD, HELD_S = "/brickyard/v1", 3.0


async def copy(api: Api, volume: str, number: int) -> Answered:
    answer = await api("POST", "/volumes", who="root", json={"volume": {"size": 1, "source_volid": volume}})
    if answer.status == 202:
        api.copies[volume].append(answer.body["volume"]["id"])  # type: ignore[attr-defined]
    return answer


async def rekey(api: Api, volume: str, number: int) -> Answered:
    return await api("POST", f"{BRICKYARD}/volumes/{volume}/rekey", who="root", json={})


async def attach_to_host(api: Api, volume: str, number: int) -> Answered:
    wanted = {"volume_id": volume, "host_id": "host-a"}
    return await api("POST", f"{BRICKYARD}/attachments", who="root", json=wanted)


async def forget(api: Api, volume: str, number: int) -> Answered:
    body = {"dry_run": False, "force": True, "words": "the disk is gone"}
    return await api("POST", f"{BRICKYARD}/volumes/{volume}/forget", who="root", json=body)


async def rename(api: Api, volume: str, number: int) -> Answered:
    return await api("PUT", f"/volumes/{volume}", who="root", json={"volume": {"name": "new"}})


# These take a volume for themselves, too.
ALONE: dict[str, Act] = {"rekey": rekey, "attach to host": attach_to_host}
BESIDE: dict[str, Act] = {
    "POST snapshots": snapshot,
    "POST volumes (copy)": copy,
    "os-force_delete": act("os-force_delete"),
    "os-reset_status": act("os-reset_status", lambda api, volume: {"status": "error"}),
    "forget": forget,
    "PUT volume": rename,
    "os-update_readonly_flag": act("os-update_readonly_flag", lambda api, volume: {"readonly": True}),
}
ENDS = {"DELETE", "DELETE cascade", "os-force_delete", "forget", "os-unmanage"}
ALL = {**ALONE, **BESIDE, **TAKING}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with volume_api(tmp_path) as made:
        for project in (P1, P2):
            limits = {"quota_set": {"volumes": -1, "gigabytes": -1, "snapshots": -1}}
            await made("PUT", f"/os-quota-sets/{project}", who="root", json=limits)
        await made.here.db.write(an_image)
        await encrypted_type(made)
        # A retype between these two writes the volume anew; where its data can stay, it is over before anything begins.
        await encrypted_type(made, "other", "luks2")
        made.taken, made.copies = {}, {}  # type: ignore[attr-defined]
        yield made


async def made_for(api: Api, names: set[str]) -> str:
    """A volume on which each of these could be done alone."""
    volume = str((await api.volume(**({"volume_type": "other"} if "rekey" in names else {})))["id"])
    api.copies[volume] = []  # type: ignore[attr-defined]
    if names & {"revert", "DELETE cascade"}:
        taken = await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})
        await api.settled()
        api.taken[volume] = taken.body["snapshot"]["id"]  # type: ignore[attr-defined]
    return volume


async def at_once(api: Api, volume: str, *acts: Act) -> list[Answered]:
    for wire in api.here.hosts.wires.values():
        wire.held = asyncio.Event()
    asked = [asyncio.ensure_future(one(api, volume, number)) for number, one in enumerate(acts)]
    # What ends a volume by force waits for the work on it.
    await asyncio.wait(asked, timeout=HELD_S)
    for wire in api.here.hosts.wires.values():
        assert wire.held is not None
        wire.held.set()
    both = await asyncio.gather(*asked)
    await api.settled()
    return both


async def whole(api: Api, volume: str, won: list[str], told: Any) -> None:
    """Nothing is at work; what is there fits together, and is what is counted."""
    assert await api.here.db.read(lambda conn: operations.listing(conn, active=True)) == [], told
    shown = await api("GET", f"/volumes/{volume}", who="root")
    taken = (await api("GET", f"/snapshots/detail?volume_id={volume}", who="root")).body["snapshots"]
    held = (await api("GET", f"/attachments?volume_id={volume}", who="root")).body["attachments"]
    if shown.status == 404:
        assert set(won) & ENDS, told
        assert (taken, held) == ([], []), told
    else:
        status = shown.body["volume"]["status"]
        assert status in VOLUME.stable - {"error_deleting", "error_extending"}, (told, status)
        assert status != "error" or "os-reset_status" in won, told
        assert not set(won) & {"os-force_delete", "forget"}, told
        # The host refuses to take a snapshot of what its own attach has begun to open for writing, and says so.
        fine = {"available", *(("error",) if "attach to host" in won else ())}
        assert {one["status"] for one in taken} <= fine, (told, taken)
        used = status in {"reserved", "attaching", "in-use"} and "os-reserve" not in won
        assert used == any(one["status"] != "detached" for one in held), (told, status, held)
    for copied in api.copies[volume]:  # type: ignore[attr-defined]
        assert (await api("GET", f"/volumes/{copied}", who="root")).body["volume"]["status"] == "available", told
    for project in (P1, P2):
        rows, counted = await api.here.db.read(
            lambda conn, project=project: (usage.by_type(conn, project), usage.counted(conn, project))
        )
        assert rows == counted, told


@pytest.mark.parametrize(
    "first",
    [name if name in {"os-force_delete", "rekey"} else pytest.param(name, marks=pytest.mark.slow)
     for name in (*ALONE, *BESIDE)],
)  # fmt: skip
async def test_both_are_told_what_became_of_it(api: Api, first: str) -> None:
    names = list(ALL)
    for second in names[names.index(first) :]:
        volume = await made_for(api, {first, second})
        both = await at_once(api, volume, ALL[first], ALL[second])
        told = [(name, answer.status, answer.body) for name, answer in zip((first, second), both, strict=True)]
        assert all(status < 300 or status in {400, 404, 409} for _, status, _ in told), told
        won = [name for name, status, _ in told if status < 300]
        assert won, told
        if first in ALONE and second in {*ALONE, *TAKING}:
            assert len(won) == 1, told
        await whole(api, volume, won, told)
        if won == ["PUT volume"] * 2 or (won == ["PUT volume"] and second not in ENDS):
            assert (await api("GET", f"/volumes/{volume}")).body["volume"]["name"] == "new"


async def test_an_offer_ends_once(api: Api) -> None:
    """Taken up by two, taken up and taken back, or beside what would end or change the volume."""

    async def take(api: Api, volume: str, number: int) -> Answered:
        offer = api.offers[volume]  # type: ignore[attr-defined]
        body = {"accept": {"auth_key": offer["auth_key"]}}
        return await api("POST", f"/volume-transfers/{offer['id']}/accept", who="other", json=body)

    async def take_back(api: Api, volume: str, number: int) -> Answered:
        return await api("DELETE", f"/volume-transfers/{api.offers[volume]['id']}", who="root")  # type: ignore[attr-defined]

    acts: dict[str, Act] = {
        "take": take, "take back": take_back, "os-force_delete": BESIDE["os-force_delete"], "forget": forget,
        "DELETE": delete, "os-extend": TAKING["os-extend"], "os-reset_status": BESIDE["os-reset_status"],
        "POST snapshots": snapshot, "POST volume-transfers": TAKING["POST volume-transfers"],
    }  # fmt: skip
    api.offers = {}  # type: ignore[attr-defined]
    for first in ("take", "take back"):
        for second, also in acts.items():
            volume = await made_for(api, set())
            offer = await api("POST", "/volume-transfers", json={"transfer": {"volume_id": volume}})
            api.offers[volume] = offer.body["transfer"]  # type: ignore[attr-defined]
            both = await at_once(api, volume, acts[first], also)
            told = [(name, answer.status, answer.body) for name, answer in zip((first, second), both, strict=True)]
            assert all(status < 300 or status in {400, 404, 409} for _, status, _ in told), told
            won = [name for name, status, _ in told if status < 300]
            assert won, told
            if second in {"take", "take back"}:
                assert len(won) == 1, told
            await whole(api, volume, won, told)
            shown = await api("GET", f"/volumes/{volume}", who="root")
            if shown.status == 200:
                owner = shown.body["volume"]["os-vol-tenant-attr:tenant_id"]
                assert owner == (P2 if "take" in won else P1), told


MADE_OF_IT = {"POST snapshots": snapshot, "POST volumes (copy)": copy}
WOULD_CHANGE_IT = ("os-extend", "os-reimage", "os-retype", "rekey", "DELETE", "DELETE cascade", "os-unmanage", "revert")


@pytest.mark.parametrize("first", MADE_OF_IT)
async def test_what_was_accepted_of_a_volume_is_made_of_what_it_was(api: Api, first: str) -> None:
    """The host has not begun with it yet: what would change the volume before is refused, and says why."""
    for second in WOULD_CHANGE_IT:
        volume = await made_for(api, {first, second})
        for wire in api.here.hosts.wires.values():
            wire.held = asyncio.Event()
        made = await MADE_OF_IT[first](api, volume, 0)
        assert made.status == 202, made.body
        refused = await ALL[second](api, volume, 1)
        for wire in api.here.hosts.wires.values():
            assert wire.held is not None
            wire.held.set()
        assert refused.status in {400, 409}, (second, refused.body)
        await api.settled()
        await whole(api, volume, [first], (first, second))
        if second == "os-extend":
            said = refused.body["badRequest"]["message"]
            assert "being taken" in said or "being made from it" in said
            assert "Wait until that has ended" in said
            assert (await ALL[second](api, volume, 1)).status == 202


async def test_a_copy_that_is_as_large_holds_up_no_extend(api: Api) -> None:
    volume = await made_for(api, set())
    for wire in api.here.hosts.wires.values():
        wire.held = asyncio.Event()
    larger = await api("POST", "/volumes", json={"volume": {"size": 2, "source_volid": volume}})
    assert larger.status == 202
    assert (await ALL["os-extend"](api, volume, 0)).status == 202
    for wire in api.here.hosts.wires.values():
        assert wire.held is not None
        wire.held.set()
    await api.settled()
    copied = (await api("GET", f"/volumes/{larger.body['volume']['id']}")).body["volume"]
    assert (copied["status"], copied["size"]) == ("available", 2)
