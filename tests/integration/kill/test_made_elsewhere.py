"""kill -9 while a volume that its pool has refused is undone there and made in another one."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.kill.kinds.world import GIB, asked
from tests.support.site import Site, started

pytestmark = [pytest.mark.kill, pytest.mark.root]
_numbers = itertools.count()
COORDINATOR, VOLUMES = "coordinator", "host-b"
# Nearly nothing is given to volumes there; who does not look at space takes it for the first choice.
TIGHT = '\n[backends.tight]\npath = "{path}"\nreserved_percent = 99\nmax_over_subscription = 1.0\n'
BLIND = (
    'scheduler.filters=["AvailabilityZoneFilter", "CapabilitiesFilter"]',
    "scheduler.multipliers={CapacityWeigher=-1.0}",
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    made = Site(2, BLIND)
    config = made.layout.agent_file(VOLUMES)
    config.write_text(config.read_text() + TIGHT.format(path=made.layout.folder / VOLUMES / "tight"))
    with started(made) as up:
        yield up


def _too_much(site: Site) -> int:
    """GiB that the tight pool may not promise."""
    found = os.statvfs(site.folder)
    return found.f_blocks * found.f_frsize // 100 // GIB + 1


def _is_in_the_other_pool(site: Site, name: str) -> None:
    (volume,) = [one for one in site.api.volumes() if one["name"] == name]
    assert (volume["status"], volume["os-vol-host-attr:host"]) == ("available", "host-b@files#files"), volume
    assert not (site.layout.folder / VOLUMES / "tight" / "volumes" / volume["id"]).exists()
    assert not site.api.get("/v3/messages?limit=1000")["messages"]
    site.api.delete(f"/v3/volumes/{volume['id']}")
    site.api.settle()
    left = site.api.get("/v3/scheduler-stats/get_pools?detail=True")["pools"]
    assert {pool["name"]: pool["capabilities"]["provisioned_capacity_gb"] for pool in left} == {
        "host-b@files#files": 0, "host-b@tight#tight": 0,
    }  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("part", "point"), [
    (COORDINATOR, "coordinator.job.before-post"), (COORDINATOR, "coordinator.undo.begin"),
    (COORDINATOR, "coordinator.undo.before-post"), (COORDINATOR, "coordinator.step.committed"),
    (COORDINATOR, "coordinator.step.committed@2"), (COORDINATOR, "coordinator.job.before-post@2"),
    (VOLUMES, "agent.job.finished"), (VOLUMES, "agent.job.effect-done"), (VOLUMES, "agent.job.effect-done@2"),
])  # fmt: skip
def test_a_kill_on_the_way_from_one_pool_to_another_heals(site: Site, part: str, point: str) -> None:
    name, size = f"v{next(_numbers)}", _too_much(site)
    site.parts[part].arm(point)
    with ThreadPoolExecutor(1) as user:
        done = user.submit(asked, lambda: site.api.create_volume(name, size=size))
        assert site.parts[part].died(200) == -signal.SIGKILL, site.parts[part].tail()
        site.restart(part)
        done.result(200)
    site.clean()
    _is_in_the_other_pool(site, name)
    site.clean()
