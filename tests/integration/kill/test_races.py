"""Requests that race on one resource through two coordinators: one wins, the others are told, all is counted once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any

import pytest

from tests.support import postgres
from tests.support.api import Api, Refused
from tests.support.site import Site, started

pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(900)]
Ask = Callable[[Api], Any]
ROUNDS = int(os.environ.get("BRICKYARD_RACES", "12"))


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    with started(Site(agents=2, database=postgres.cluster().database(), coordinators=2)) as site:
        yield site


def at_once(site: Site, *asks: Ask) -> list[int]:
    """All of these at the same moment, by turns at either coordinator; 0 for each that was taken, else its status."""
    gate = Barrier(len(asks))

    def ask(number: int) -> int:
        api = site.coordinators[number % 2].api
        gate.wait(120)
        try:
            asks[number](api)
        except Refused as refused:
            return refused.status
        finally:
            api.hang_up()
        return 0

    with ThreadPoolExecutor(len(asks)) as users:
        return list(users.map(ask, range(len(asks))))


def test_a_delete_and_an_extend_are_never_both_at_work(shared: Site) -> None:
    api = shared.api
    volumes = [api.create_volume(f"r{n}") for n in range(ROUNDS)]
    api.settle(60)
    won: Counter[str] = Counter()
    for volume in volumes:

        def delete(one: Api, volume: str = volume) -> None:
            one.delete(f"/v3/volumes/{volume}")

        def extend(one: Api, volume: str = volume) -> None:
            one.post(f"/v3/volumes/{volume}/action", {"os-extend": {"new_size": 2}})

        deleted, extended = at_once(shared, delete, extend)
        # Both are taken when the extend has ended before the delete is looked at.
        assert 0 in {deleted, extended}, (deleted, extended)
        assert deleted in {0, 400}
        assert extended in {0, 400, 404}
        won["delete" if deleted == 0 else "extend"] += 1
    api.settle(60)
    ended = shared.truths.rows("SELECT state FROM operations WHERE kind IN ('extend_volume', 'delete_volume')")
    assert {row["state"] for row in ended} == {"done"}
    left = api.volumes()
    assert len(left) == won["extend"]
    assert {(row["size"], row["status"]) for row in left} <= {(2, "available")}
    assert api.usage() == {"volumes": len(left), "gigabytes": 2 * len(left), "snapshots": 0}
    for row in left:
        api.delete(f"/v3/volumes/{row['id']}")
    shared.clean()


def test_an_extend_and_a_retype_lose_nothing_of_each_other(shared: Site) -> None:
    """One is refused while the other is at work; where both are taken, as one had ended, both are kept."""
    api = shared.api
    other = str(api.post("/v3/types", {"volume_type": {"name": "other"}})["volume_type"]["name"])
    volumes = [api.create_volume(f"e{n}") for n in range(max(4, ROUNDS // 2))]
    api.settle(120)
    asked: dict[str, list[int]] = {}
    for volume in volumes:
        path = f"/v3/volumes/{volume}/action"
        asked[volume] = at_once(
            shared,
            lambda one, path=path: one.post(path, {"os-extend": {"new_size": 2}}),
            lambda one, path=path: one.post(path, {"os-retype": {"new_type": other}}),
        )
    api.settle(120)
    for volume, (extended, retyped) in asked.items():
        assert 0 in {extended, retyped}
        assert {extended, retyped} <= {0, 400, 409}
        row = api.volume(volume)
        assert (row["size"], row["volume_type"] == other) == (2 if extended == 0 else 1, retyped == 0)
        assert row["status"] == "available"
    quota = api.get(f"/v3/os-quota-sets/{api.project}?usage=True")["quota_set"]
    retypes = [retyped for _, retyped in asked.values()].count(0)
    assert (quota["volumes_other"]["in_use"], quota["volumes"]["in_use"]) == (retypes, len(volumes))
    assert quota["gigabytes"]["in_use"] == sum(2 if extended == 0 else 1 for extended, _ in asked.values())
    for volume in volumes:
        api.delete(f"/v3/volumes/{volume}")
    shared.clean()


def test_of_many_deletes_one_is_taken(shared: Site) -> None:
    volume = shared.api.made("once")
    answers = at_once(shared, *[lambda one: one.delete(f"/v3/volumes/{volume}")] * 12)
    assert answers.count(0) == 1
    assert set(answers) <= {0, 400, 404}
    shared.clean()
    rows = shared.truths.rows("SELECT kind FROM operations WHERE resource_id = ?", volume)
    assert Counter(row["kind"] for row in rows) == {"create_volume": 1, "delete_volume": 1}


def test_a_snapshot_is_never_left_without_its_volume(shared: Site) -> None:
    api = shared.api
    volumes = [api.create_volume(f"s{n}") for n in range(max(4, ROUNDS // 3))]
    api.settle(60)
    for volume in volumes:
        at_once(
            shared,
            lambda one, volume=volume: one.delete(f"/v3/volumes/{volume}"),
            lambda one, volume=volume: one.post("/v3/snapshots", {"snapshot": {"volume_id": volume}}),
        )
    api.settle(60)
    there = {row["id"] for row in api.volumes()}
    snapshots = api.get("/v3/snapshots")["snapshots"]
    assert {row["volume_id"] for row in snapshots} == there
    for row in snapshots:
        api.delete(f"/v3/snapshots/{row['id']}")
    api.settle(60)
    for volume in there:
        with suppress(Refused):
            api.delete(f"/v3/volumes/{volume}")
    shared.clean()


def test_a_limit_holds_exactly_however_many_ask(shared: Site) -> None:
    api = shared.api
    api.call("PUT", f"/v3/os-quota-sets/{api.project}", {"quota_set": {"volumes": 5}})
    try:
        answers = at_once(shared, *[lambda one, n=n: one.create_volume(f"q{n}") for n in range(40)])
        assert answers.count(0) == 5, answers
        assert set(answers) == {0, 413}
        api.settle(60)
        assert api.usage()["volumes"] == 5
    finally:
        api.call("PUT", f"/v3/os-quota-sets/{api.project}", {"quota_set": {"volumes": -1}})
        for row in api.volumes():
            api.delete(f"/v3/volumes/{row['id']}")
    shared.clean()


def test_of_many_attachments_one_is_made(shared: Site) -> None:
    volume = shared.api.made("held")
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": "11111111-2222-4333-8444-555555555555"}}
    others = [{"attachment": {**body["attachment"], "instance_uuid": f"11111111-2222-4333-8444-{n:012d}"}}
              for n in range(12)]  # fmt: skip
    answers = at_once(shared, *[lambda one, body=body: one.post("/v3/attachments", body) for body in others])
    assert answers.count(0) == 1, answers
    assert set(answers) == {0, 400}
    (kept,) = shared.api.get("/v3/attachments")["attachments"]
    shared.api.delete(f"/v3/attachments/{kept['id']}")
    assert shared.api.volume(volume)["status"] == "available"
    shared.api.delete(f"/v3/volumes/{volume}")
    shared.api.settle()
    assert volume not in {row["id"] for row in shared.api.volumes()}


def test_of_many_detaches_one_is_done_and_the_others_are_told_of_it(shared: Site) -> None:
    volume = shared.api.made("attached")
    host = shared.api.volume(volume)["os-vol-host-attr:host"].partition("@")[0]
    made = shared.api.post("/brickyard/v1/attachments", {"volume_id": volume, "host_id": host})["attachment"]["id"]
    shared.api.settle(60)
    shared.agents[host].pause()  # So that none of them comes too late.
    told: list[str] = []

    def detach(one: Api) -> None:
        told.append(one.delete(f"/brickyard/v1/attachments/{made}")["operation"]["id"])

    try:
        assert at_once(shared, *[detach] * 10) == [0] * 10
    finally:
        shared.agents[host].go_on()
    assert len(set(told)) == 1
    shared.api.settle(60)
    with pytest.raises(Refused, match="404"):
        shared.api.delete(f"/brickyard/v1/attachments/{made}")
    assert shared.api.volume(volume)["status"] == "available"
    shared.api.delete(f"/v3/volumes/{volume}")
    shared.clean()
