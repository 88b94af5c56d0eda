"""Two coordinators on one PostgreSQL: when one dies or stands still, its work goes on at the other, and only there."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.support import postgres
from tests.support.api import AWAY
from tests.support.proxy import Proxy
from tests.support.site import Site, started

pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.postgresql]
TAKEOVER_S = 90.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    with started(Site(agents=3, database=postgres.cluster().database(), coordinators=2)) as site:
        yield site


def test_each_takes_calls_with_the_token_of_the_other(shared: Site) -> None:
    first, second = (part.api for part in shared.coordinators)
    volume = first.made("here")
    assert second.volume(volume)["status"] == "available"
    second.delete(f"/v3/volumes/{volume}")
    first.settle()
    assert volume not in {row["id"] for row in second.volumes()}
    shared.clean()


@pytest.mark.slow
def test_who_waits_at_the_other_coordinator_is_told_at_once(shared: Site) -> None:
    first, second = (part.api for part in shared.coordinators)
    host = shared.agents[shared.hosts[1]]
    volumes = [first.create_volume(f"w{n}") for n in range(6)]
    for volume in volumes:
        operation = second.operations(volume)[0]
        assert second.wait(operation["id"], 20)["state"] == "done"
    assert host.alive
    for volume in volumes:
        second.delete(f"/v3/volumes/{volume}")
    shared.clean()


@pytest.mark.parametrize(
    "fault",
    [
        "coordinator.job.before-post",
        *(pytest.param(f"coordinator.{name}", marks=pytest.mark.slow)
          for name in ("accepted", "job.result-in-hand", "step.committed")),
    ],
)  # fmt: skip
def test_what_a_killed_one_had_in_hand_is_done_by_the_other(shared: Site, fault: str) -> None:
    dying, living = shared.coordinators
    dying.arm(fault)
    with suppress(*AWAY):
        dying.api.create_volume("orphan")
    dying.died()
    living.api.settle(TAKEOVER_S)
    (volume,) = living.api.volumes()
    assert volume["status"] == "available"
    assert _ends(shared, volume["id"]) in ([("done", 1)], [("done", 2)])
    living.api.delete(f"/v3/volumes/{volume['id']}")
    living.api.settle()
    shared.restart(dying.name)
    dying.heard("up")
    shared.clean()


def test_one_that_stands_still_past_its_lease_has_lost_its_work(shared: Site) -> None:
    paused, living = shared.coordinators[1], shared.coordinators[0]
    host = shared.agents[shared.hosts[-1]]
    others = [shared.agents[name] for name in shared.hosts[:-1]]
    for part in (host, *others):
        part.pause()
    volume = paused.api.create_volume("moved")
    paused.pause()
    for part in (host, *others):
        part.go_on()
    living.api.settle(TAKEOVER_S)
    assert living.api.volume(volume)["status"] == "available"
    assert _ends(shared, volume) == [("done", 2)]
    paused.go_on()
    assert paused.api.volume(volume)["status"] == "available"
    made = paused.api.made("after")
    for each in (volume, made):
        paused.api.delete(f"/v3/volumes/{each}")
    shared.clean()


@pytest.mark.slow
def test_hosts_of_a_dead_coordinator_are_watched_by_the_living(shared: Site) -> None:
    dead, living = shared.coordinators
    dead.kill()
    for host in shared.hosts:
        shared.agents[host].kill()
    shared.truths.eventually(lambda: _none_answers(living), 40)
    for host in shared.hosts:
        shared.restart(host)
    shared.truths.eventually(lambda: _all_answer(living), 40)
    shared.restart(dead.name)
    dead.heard("up")
    shared.clean()


@pytest.mark.slow
def test_postgresql_that_dies_and_comes_back_is_waited_for(shared: Site) -> None:
    first, second = shared.coordinators
    volumes = [first.api.create_volume(f"p{n}") for n in range(4)]
    postgres.cluster().kill()
    postgres.cluster().start()
    for part in (first, second):
        part.api.settle(TAKEOVER_S)
    found = {row["id"]: row["status"] for row in second.api.volumes()}
    assert {volume: found.get(volume) for volume in volumes} == dict.fromkeys(volumes, "available")
    for volume in volumes:
        second.api.delete(f"/v3/volumes/{volume}")
    shared.clean()


def test_a_post_held_back_until_after_the_takeovers_undo_is_refused() -> None:
    site = Site(agents=1, agent_sets=("log.level=debug",), database=postgres.cluster().database(), coordinators=2)
    host = site.volume_host
    port = int(tomllib.loads(site.layout.agent_file(host).read_text())["agent"]["port"])
    proxy = Proxy(port)
    site.agents[host].more["reach"] = proxy.port
    with proxy.relaying(), started(site):
        paused, living = site.coordinators
        proxy.hold()
        with ThreadPoolExecutor(1) as user:
            asked = user.submit(_create, paused)
            assert proxy.wait_held() > 100
            volume = asked.result(10)
        paused.pause()
        (operation,) = living.api.operations(volume)
        living.api.post(f"/brickyard/v1/operations/{operation['id']}/cancel", {})
        living.api.settle(TAKEOVER_S)
        assert _ends(site, volume) == [("cancelled", 2)]
        # Now the paused one's POST comes in, on the connection that it had opened.
        assert proxy.release() > 0
        paused.go_on()
        site.clean()
        assert site.truths.journal(host, "SELECT * FROM jobs") == []
        assert "stale-epoch" in site.agents[host].log.read_text()
        assert paused.api.volume(volume)["status"] == "error"


def _ends(site: Site, volume: str) -> list[tuple[str, int]]:
    rows = site.truths.rows("SELECT state, epoch FROM operations WHERE resource_id = ?", volume)
    return [(row["state"], row["epoch"]) for row in rows]


def _create(part: Any) -> Any:
    with suppress(*AWAY):
        return part.api.create_volume("late")


def _none_answers(part: Any) -> None:
    assert not any(host["reachable"] for host in part.api.get("/brickyard/v1/hosts")["hosts"])


def _all_answer(part: Any) -> None:
    assert all(host["reachable"] for host in part.api.get("/brickyard/v1/hosts")["hosts"])


def test_progress_is_seen_at_the_other_coordinator_and_work_is_cancelled_from_there() -> None:
    limit = "jobs.rate_limit=1048576"
    site = Site(agents=2, agent_sets=(limit,), database=postgres.cluster().database(), coordinators=2)
    with started(site):
        first, second = (part.api for part in site.coordinators)
        image = first.image("slow", "raw", os.urandom(24 << 20))
        volume = first.create_volume("slow", imageRef=image)
        (operation,) = second.operations(volume)
        seen = operation["seq"]
        path = f"/brickyard/v1/operations/{operation['id']}"
        for _ in range(20):
            found = second.get(f"{path}?wait=10&after={seen}")["operation"]
            if found["progress"] is not None and found["progress"]["done"] > 0:
                break
        assert found["progress"]["done"] > 0
        assert found["seq"] > seen
        assert found["state"] == "running"
        second.post(f"{path}/cancel", {})
        second.settle(TAKEOVER_S)
        assert _ends(site, volume) == [("cancelled", 1)]
        assert second.get(path)["operation"]["state"] == "cancelled"
