"""Many random calls while processes are killed: usage is the sum of rows all along, and all is well at the end.

`BRICKYARD_RANDOM_OPERATIONS` lets it go on until so many were accepted, `BRICKYARD_RANDOM_SEED` does a run again.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support.api import AWAY, Refused
from tests.support.site import Site, running

OPERATIONS = int(os.environ.get("BRICKYARD_RANDOM_OPERATIONS", "0"))
pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300 + 3 * OPERATIONS)]
CALLS, KILL_EVERY, BUDGET_S = 300, 15, 90.0


class User:
    """Picks a call at random among those that make sense, without waiting for what it asked before."""

    def __init__(self, site: Site, choose: random.Random) -> None:
        self.site, self.choose, self.count, self.accepted = site, choose, 0, 0

    def act(self) -> None:
        calls: list[Callable[[], object]] = [self.create, self.create, self.clone, self.extend, self.snapshot,
                                             self.delete, self.delete, self.delete_snapshot, self.cascade, self.revert,
                                             self.retype]  # fmt: skip
        with suppress(Refused, IndexError, *AWAY):
            self.choose.choice(calls)()
            self.accepted += 1

    def create(self) -> None:
        self.count += 1
        self.site.api.create_volume(f"v{self.count}", self.choose.randint(1, 3))

    def clone(self) -> None:
        self.site.api.create_volume("clone", 3, source_volid=self.volume())

    def extend(self) -> None:
        size = self.choose.randint(2, 6)
        self.site.api.post(f"/v3/volumes/{self.volume()}/action", {"os-extend": {"new_size": size}})

    def snapshot(self) -> None:
        self.site.api.post("/v3/snapshots", {"snapshot": {"volume_id": self.volume(), "name": "s"}})

    def delete(self) -> None:
        self.site.api.delete(f"/v3/volumes/{self.volume()}")

    def cascade(self) -> None:
        self.site.api.delete(f"/v3/volumes/{self.volume()}?cascade=true")

    def revert(self) -> None:
        taken = self.choose.choice(self.site.api.call("GET", "/v3/snapshots")["snapshots"])
        body = {"revert": {"snapshot_id": taken["id"]}}
        self.site.api.post(f"/v3/volumes/{taken['volume_id']}/action", body)

    def retype(self) -> None:
        kinds = self.site.api.call("GET", "/v3/types")["volume_types"]
        body = {"os-retype": {"new_type": self.choose.choice(kinds)["id"]}}
        self.site.api.post(f"/v3/volumes/{self.volume()}/action", body)

    def delete_snapshot(self) -> None:
        found = self.site.api.call("GET", "/v3/snapshots")["snapshots"]
        self.site.api.delete(f"/v3/snapshots/{self.choose.choice(found)['id']}")

    def volume(self) -> str:
        found = self.site.api.call("GET", "/v3/volumes?limit=1000")["volumes"]
        return str(self.choose.choice(found)["id"])


def rows_used(site: Site) -> dict[str, int]:
    volumes, snapshots = site.truths.live("volumes"), site.truths.live("snapshots")
    gigabytes = sum(row["size"] + row["reserved_size"] for row in volumes)
    gigabytes += sum(row["volume_size"] for row in snapshots)
    return {"volumes": len(volumes), "snapshots": len(snapshots), "gigabytes": gigabytes}


def usage_is_the_sum_of_rows(site: Site) -> bool:
    """Asked again while rows change in between; False where they always did."""
    for _ in range(20):
        before = rows_used(site)
        told = site.api.usage()
        if before == rows_used(site):
            assert told == before
            return True
    return False


def test_random_calls_and_random_kills() -> None:
    seed = int(os.environ.get("BRICKYARD_RANDOM_SEED") or random.randrange(1 << 32))
    print("seed", seed)
    choose = random.Random(seed)
    with running() as site:
        user, ends = User(site, choose), time.monotonic() + BUDGET_S
        calls = kills = compared = 0
        while user.accepted < OPERATIONS if OPERATIONS else calls < CALLS and time.monotonic() < ends:
            user.act()
            calls += 1
            compared += usage_is_the_sum_of_rows(site)
            if calls % KILL_EVERY == 0:
                victim = choose.choice([*site.parts.values()])
                victim.kill()
                kills += 1
                with suppress(*AWAY):
                    if victim is not site.coordinator:
                        user.act()
                site.restart(victim.name)
            if calls % 100 == 0:
                print(f"{calls} calls, {user.accepted} accepted, {kills} kills, compared {compared} times", flush=True)
        assert compared > calls * 0.9, "usage was hardly ever seen while rows stood still"
        site.clean()
        failed = {row["id"] for row in site.truths.live("volumes") if row["status"] == "error"}
        assert not failed, failed
        for snapshot in site.api.get("/v3/snapshots")["snapshots"]:
            site.api.delete(f"/v3/snapshots/{snapshot['id']}")
        site.api.settle()
        for volume in site.api.volumes():
            site.api.delete(f"/v3/volumes/{volume['id']}")
        site.clean()
        assert site.api.usage() == {"volumes": 0, "snapshots": 0, "gigabytes": 0}
