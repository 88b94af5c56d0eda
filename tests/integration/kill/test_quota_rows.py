"""Quota as an operator meets it on a site of real processes: limits below what is in use, work that hangs with what it
has reserved, another way of counting."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.api import Refused
from tests.support.site import Site, started

pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.timeout(900)]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    database = postgres.cluster().database() if request.param == "postgresql" else None
    with started(Site(agents=1, sets=("fleet.poll_interval_s=1",), database=database)) as made:
        yield made


def run(site: Site, *words: str) -> tuple[int, str]:
    """A client as an administrator; its exit code and all that it says."""
    env = {
        "OS_AUTH_URL": f"http://127.0.0.1:{site.api.port}/identity/v3", "OS_USERNAME": "admin",
        "OS_PASSWORD": site.api.password(), "OS_PROJECT_NAME": "admin", "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default", "OS_VOLUME_API_VERSION": "3.71", "OS_IDENTITY_API_VERSION": "3",
    }  # fmt: skip
    whole = {**{key: value for key, value in os.environ.items() if not key.startswith("OS_")}, **env}
    done = subprocess.run(
        [BIN / words[0], *words[1:]], env=whole, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout + done.stderr


def limit(site: Site, name: str) -> int:
    return int(site.api.get(f"/v3/os-quota-sets/{site.api.project}")["quota_set"][name])


def told(site: Site, name: str = "gigabytes") -> tuple[int, int]:
    """What is in use, and what is reserved."""
    found = site.api.get(f"/v3/os-quota-sets/{site.api.project}?usage=True")["quota_set"][name]
    return int(found["in_use"]), int(found["reserved"])


def test_a_limit_below_what_is_in_use_is_refused_by_clients_that_ask_for_that(site: Site) -> None:
    api = site.api
    volumes = [api.made(f"v{number}") for number in range(2)]
    code, said = run(site, "cinder", "quota-update", "--volumes", "1", "--gigabytes", "50", api.project)
    assert code != 0
    assert "volumes (1 asked for, 2 in use)" in said
    assert "gigabytes" not in said
    code, said = run(site, "brickyard", "quota", "set", "admin", "volumes=1")
    assert code != 0
    assert "volumes (1 asked for, 2 in use)" in said
    assert (limit(site, "volumes"), limit(site, "gigabytes")) == (-1, -1)
    assert run(site, "cinder", "quota-update", "--volumes", "1", "--skip-validation", "True", api.project)[0] == 0
    assert limit(site, "volumes") == 1
    with pytest.raises(Refused) as refused:
        api.create_volume("more")
    assert refused.value.status == 413
    assert run(site, "brickyard", "quota", "set", "admin", "volumes=2")[0] == 0
    assert run(site, "brickyard", "quota", "set", "admin", "volumes=0", "--force")[0] == 0
    assert limit(site, "volumes") == 0
    assert run(site, "brickyard", "quota", "set", "admin", "volumes=-1")[0] == 0
    for volume in volumes:
        api.delete(f"/v3/volumes/{volume}")
    site.clean()


def test_what_a_hanging_extend_has_reserved_is_told_and_who_can_end_it(site: Site) -> None:
    api, agent = site.api, site.agents[site.hosts[0]]
    volume = api.made("grows")
    agent.pause()
    try:
        api.post(f"/v3/volumes/{volume}/action", {"os-extend": {"new_size": 3}})
        assert told(site) == (1, 2)
        assert told(site, "gigabytes___DEFAULT__") == (1, 2)
        (operation,) = api.active()
        with pytest.raises(Refused) as refused:
            api.post(f"/v3/volumes/{volume}/action", {"os-reset_status": {"status": "available"}})
        assert refused.value.status == 400
        assert f"brickyard operation cancel {operation['id']}" in refused.value.text
        assert "extend_volume" in refused.value.text
        assert told(site) == (1, 2), "a host may still grow it"
        assert run(site, "brickyard", "operation", "cancel", operation["id"], "--yes")[0] == 0
    finally:
        agent.go_on()
    api.settle(300)
    size = api.volume(volume)["size"]
    assert told(site) == (size, 0)
    api.delete(f"/v3/volumes/{volume}")
    site.clean()


def test_a_coordinator_that_counts_otherwise_does_not_start_until_the_site_is_turned(site: Site) -> None:
    api, part = site.api, site.coordinator
    volume = api.made("taken", 2)
    api.post("/v3/snapshots", {"snapshot": {"volume_id": volume}})
    api.settle(300)
    assert told(site) == (4, 0)
    assert part.stop() == 0
    other = "quota.no_snapshot_gb_quota=true"
    part.begin(other)
    assert part.died(180) != 0
    assert "quota.no_snapshot_gb_quota is true in the configuration" in part.tail()
    state = [f"--set={item}" for item in part.sets if item.startswith("state.")]
    words = ["quota", "change", "--config", str(part.config), *state]
    code, said = run(site, "brickyard-coordinator", *words, f"--set={other}")
    assert (code, said.strip().splitlines()[-1]) == (0, "quota.no_snapshot_gb_quota: false -> true"), said
    site.restart("coordinator", other)
    part.heard("up")
    assert told(site) == (2, 0)
    assert part.stop() == 0
    assert run(site, "brickyard-coordinator", *words)[0] == 0
    site.restart("coordinator")
    part.heard("up")
    assert told(site) == (4, 0)
    for snapshot in api.get("/v3/snapshots")["snapshots"]:
        api.delete(f"/v3/snapshots/{snapshot['id']}")
    api.settle(300)
    api.delete(f"/v3/volumes/{volume}")
    site.clean()
