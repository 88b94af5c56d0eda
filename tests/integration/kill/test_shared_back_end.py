"""Two agents that serve one folder: one is killed, at rest and in the middle of its work, and the other goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.support.api import AWAY
from tests.support.site import Part, Site, started

pytestmark = [pytest.mark.kill, pytest.mark.root]
LEASE_S, MIB = 2, 1 << 20


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    sets = (f"fleet.member_lease_s={LEASE_S}", "fleet.poll_interval_s=1")
    site = Site(agents=2, sets=sets)
    folder = site.folder / "shared"
    for part in site.agents.values():
        part.sets = (*part.sets, f"backends.files.path={folder}", "backends.files.cluster_name=c1")
    with started(site):
        yield site


def folder(site: Site) -> Path:
    return site.folder / "shared" / "volumes"


def hosts(site: Site) -> Counter[str]:
    return Counter(row["os-vol-host-attr:host"].partition("@")[0] for row in site.api.volumes())


def cluster(site: Site) -> dict[str, object]:
    found = site.api.get("/v3/clusters/detail")["clusters"]
    assert len(found) == 1, found
    return dict(found[0])


def created_until_death(dying: Part, **wanted: Any) -> None:
    """Volumes, until one of them meets the fault that its host is to die of."""
    for number in range(12):
        with suppress(*AWAY):
            dying.site.api.create_volume(f"v{number}", **wanted)
        if not dying.alive:
            break
    dying.died()


def all_gone(site: Site) -> None:
    for row in site.api.volumes():
        site.api.delete(f"/v3/volumes/{row['id']}")
    site.api.settle()
    assert site.api.volumes() == []
    assert list(folder(site).iterdir()) == []
    assert list((folder(site).parent / "partial").iterdir()) == []


def test_both_serve_and_one_is_enough(shared: Site) -> None:
    api = shared.api
    shared.truths.eventually(lambda: _whole(shared), 60)
    for number in range(8):
        api.create_volume(f"v{number}")
    api.settle()
    assert {row["status"] for row in api.volumes()} == {"available"}
    assert set(hosts(shared)) == set(shared.hosts)
    assert {row["cluster_name"] for row in api.volumes()} == {"c1@files"}
    dead = shared.hosts[0]
    shared.agents[dead].kill()

    def moved() -> None:
        assert dead not in hosts(shared)
        assert (cluster(shared)["num_down_hosts"], cluster(shared)["state"]) == (1, "up")

    shared.truths.eventually(moved, 30)
    made = [api.made(f"after{number}") for number in range(3)]
    assert len(made) == 3
    all_gone(shared)
    shared.restart(dead)
    shared.truths.eventually(lambda: _whole(shared), 30)


def test_the_clients_that_people_have_see_it(shared: Site) -> None:
    shared.truths.eventually(lambda: _whole(shared), 60)
    listed = _cinder(shared, "3.7", "cluster-list", "--detailed")
    assert "c1@files" in listed
    assert "up" in listed
    assert "c1@files" in _cinder(shared, "3.7", "cluster-show", "c1@files")
    assert "disabled" in _cinder(shared, "3.7", "cluster-disable", "c1@files", "--reason", "test")
    assert "enabled" in _cinder(shared, "3.7", "cluster-enable", "c1@files")
    assert "c1@files" in _cinder(shared, "3.7", "service-list")
    cleaned = _cinder(shared, "3.24", "work-cleanup")
    assert all(f"{host}@files" in cleaned for host in shared.hosts), cleaned


@pytest.mark.parametrize("fault", ["agent.job.started", "agent.job.effect-done"])
def test_what_it_had_in_hand_is_done_by_the_other(shared: Site, fault: str) -> None:
    api, dying = shared.api, shared.agents[shared.hosts[1]]
    dying.arm(fault)
    created_until_death(dying)
    api.settle(30)
    assert {row["status"] for row in api.volumes()} == {"available"}
    # Its volumes were moved, in hand or idle.
    shared.truths.eventually(lambda: _at(shared, shared.hosts[0]), 30)
    assert sorted(path.name for path in folder(shared).iterdir()) == sorted(row["id"] for row in api.volumes())
    all_gone(shared)
    shared.restart(dying.name)
    shared.truths.eventually(lambda: _whole(shared), 30)
    # What it was doing when it died it does not go on with.
    shared.truths.eventually(lambda: _nothing_kept(shared, dying.name), 30)


@pytest.mark.parametrize("fault", ["agent.job.started", "agent.job.effect-done"])
def test_an_image_that_it_was_copying_is_copied_by_the_other(shared: Site, fault: str) -> None:
    api, dying, content = shared.api, shared.agents[shared.hosts[1]], os.urandom(8 * MIB)
    image = api.image("system", "raw", content)
    dying.arm(fault)
    created_until_death(dying, imageRef=image)
    api.settle(60)
    assert {row["status"] for row in api.volumes()} == {"available"}
    for row in api.volumes():
        with (folder(shared) / row["id"]).open("rb") as data:
            assert data.read(len(content)) == content
    all_gone(shared)
    api.delete(f"/image/v2/images/{image}")
    shared.restart(dying.name)
    shared.truths.eventually(lambda: _whole(shared), 30)
    shared.truths.eventually(lambda: _nothing_kept(shared, dying.name), 30)


def test_what_a_host_had_alone_is_served_by_all_once_it_is_in_a_cluster() -> None:
    site = Site(agents=2, sets=(f"fleet.member_lease_s={LEASE_S}", "fleet.poll_interval_s=1"))
    alone, joins = (site.agents[host] for host in site.hosts)
    place, usual = f"backends.files.path={folder(site).parent}", joins.sets
    alone.sets = (*alone.sets, place)
    with started(site):
        api = site.api
        other = api.get(f"/v3/os-services?host={joins.name}@files&binary=cinder-volume")["services"][0]["host"]
        api.call("PUT", "/v3/os-services/disable", {"binary": "cinder-volume", "host": other})
        kept = [api.made(f"v{number}") for number in range(3)]
        assert hosts(site) == Counter({alone.name: 3})
        for part in (alone, joins):
            part.kill()
        for part, sets in ((alone, alone.sets), (joins, (*usual, place))):
            part.sets = (*sets, "backends.files.cluster_name=c1")
            site.restart(part.name)
        api.call("PUT", "/v3/os-services/enable", {"binary": "cinder-volume", "host": other})
        site.truths.eventually(lambda: _whole(site), 60)
        assert {row["cluster_name"] for row in api.volumes()} == {"c1@files"}
        assert {row["id"] for row in api.volumes()} == set(kept)
        alone.kill()
        site.truths.eventually(lambda: _at(site, joins.name), 30)
        api.post(f"/v3/volumes/{kept[0]}/action", {"os-extend": {"new_size": 2}})
        api.settle(60)
        assert api.volume(kept[0])["size"] == 2
        all_gone(site)


def test_two_cleanups_at_once_and_restarts_between_them_do_each_thing_once(shared: Site) -> None:
    api, dying = shared.api, shared.agents[shared.hosts[1]]
    dying.arm("agent.job.started")
    created_until_death(dying)
    made = {api.operations(row["id"])[0]["id"] for row in api.volumes()}
    gate = Barrier(3)

    def cleanup(_: int) -> set[str]:
        gate.wait(60)
        told = api.post("/v3/workers/cleanup", {})
        api.hang_up()
        return {row["host"] for row in (*told["cleaning"], *told["unavailable"])}

    everywhere = {f"{host}@files" for host in shared.hosts}
    with ThreadPoolExecutor(2) as admins:
        asked = admins.map(cleanup, range(2))
        gate.wait(60)
        assert list(asked) == [everywhere] * 2
        shared.coordinator.kill()
        shared.restart("coordinator")
        asked = admins.map(cleanup, range(2))
        gate.wait(60)
        shared.restart(dying.name)
        assert list(asked) == [everywhere] * 2
    api.settle(120)
    assert {row["status"] for row in api.volumes()} == {"available"}
    assert sorted(path.name for path in folder(shared).iterdir()) == sorted(row["id"] for row in api.volumes())
    logs = "".join(part.log.read_text() for part in shared.agents.values())
    done = Counter(re.findall(r"job ended .* kind=volume.create operation=(\S+) .*state=done", logs))
    assert {one: done[one] for one in made} == dict.fromkeys(made, 1)
    shared.truths.eventually(lambda: _whole(shared), 60)
    all_gone(shared)
    shared.truths.eventually(lambda: _nothing_kept(shared, dying.name), 60)


def test_one_that_stood_still_does_not_go_on(shared: Site) -> None:
    api, paused = shared.api, shared.agents[shared.hosts[1]]
    paused.pause()
    try:
        for number in range(6):
            api.create_volume(f"p{number}")
        api.settle(60)
        assert {row["status"] for row in api.volumes()} == {"available"}
        shared.truths.eventually(lambda: _at(shared, shared.hosts[0]), 30)
    finally:
        paused.go_on()
    shared.truths.eventually(lambda: _whole(shared), 30)
    all_gone(shared)
    shared.truths.eventually(lambda: _nothing_kept(shared, paused.name), 30)


def _at(site: Site, host: str) -> None:
    assert set(hosts(site)) == {host}


def _whole(site: Site) -> None:
    found = cluster(site)
    assert (found["num_hosts"], found["num_down_hosts"]) == (len(site.hosts), 0)


def _nothing_kept(site: Site, host: str) -> None:
    assert site.truths.journal(host, "SELECT key, state FROM jobs") == []


def _cinder(site: Site, version: str, *words: str) -> str:
    password = (site.layout.coordinator_state / "admin-password").read_text().strip()
    cloud = {
        "OS_AUTH_URL": f"http://127.0.0.1:{site.api.port}/identity/v3", "OS_USERNAME": "admin",
        "OS_PASSWORD": password, "OS_PROJECT_NAME": "admin", "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
    }  # fmt: skip
    plain = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    command = [Path(sys.executable).parent / "cinder", "--os-volume-api-version", version, *words]
    done = subprocess.run(
        command, env={**plain, **cloud}, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
