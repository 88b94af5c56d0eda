"""Two coordinators on PostgreSQL, six agents, users at work, and misfortunes; after each, all must be as it should be.

`BRICKYARD_CHAOS_S` says for how long, `BRICKYARD_CHAOS_SEED` which run is done again.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack
from subprocess import CalledProcessError

import pytest

from tests.integration.kill.chaos import RATIO, Misfortunes, Users, World
from tests.support import postgres
from tests.support.site import Site, started

SECONDS = float(os.environ.get("BRICKYARD_CHAOS_S", "120"))
pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(SECONDS * 4 + 400)]
CALLS = 12
# Issues that say what users were told too, or what was so for a while; all others would be false alarms.
TOLD = {"host.unreachable", "host.clock-skew"}


def test_chaos() -> None:
    seed = int(os.environ.get("BRICKYARD_CHAOS_SEED") or random.randrange(1 << 32))
    print(f"seed {seed}: BRICKYARD_CHAOS_SEED={seed} make chaos")
    choose = random.Random(seed)
    site = Site(6, ("fleet.poll_interval_s=2.0",), database=postgres.cluster().database(), coordinators=2)
    with ExitStack() as stack:
        try:
            world = World(site, stack)
        except CalledProcessError as error:
            site.close()
            pytest.skip(f"no file system in a file can be mounted here: {error.stderr!r}")
        with started(site):
            world.log_in()
            users = Users(world, choose)
            misfortunes = Misfortunes(world, choose, users)
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                for _ in range(CALLS):
                    users.act()
                misfortunes.strike()
                print(f"{SECONDS - ends + time.monotonic():.0f} s: {misfortunes.done[-1]}", flush=True)
                for part in site.coordinators:
                    part.api.settle(30)
                site.clean()
                _promises(site)
                users.check()
                users.mark()
            users.check()
            print(
                f"{len(misfortunes.done)} misfortunes {misfortunes.done}; calls {users.done}; {users.checked} checked"
            )
            _tear_down(site)
            site.clean()
            assert site.api.usage() == {"volumes": 0, "snapshots": 0, "gigabytes": 0}


def _promises(site: Site) -> None:
    """No pool has promised more than it may, no volume has two devices, and nobody was alarmed for nothing."""
    for pool in site.truths.rows("SELECT * FROM pools"):
        assert pool["provisioned_bytes"] <= pool["total_bytes"] * RATIO, pool
    devices = [
        row["volume_id"]
        for host in site.hosts
        for row in site.truths.journal(host, "SELECT volume_id FROM attachments WHERE wanted")
    ]
    assert len(devices) == len(set(devices)), f"volumes attached twice: {devices}"

    def quiet() -> None:
        opened = site.truths.rows("SELECT * FROM issues WHERE closed_at IS NULL")
        assert not [row for row in opened if row["code"] not in TOLD], opened

    site.truths.eventually(quiet, 30)


def _tear_down(site: Site) -> None:
    for row in site.truths.live("attachments"):
        site.api.delete(f"/brickyard/v1/attachments/{row['id']}")
    site.api.settle()
    for row in site.truths.live("snapshots"):
        site.api.delete(f"/v3/snapshots/{row['id']}")
    site.api.settle()
    for row in site.truths.live("volumes"):
        site.api.delete(f"/v3/volumes/{row['id']}")
