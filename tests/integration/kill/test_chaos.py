"""Two coordinators on PostgreSQL, four agents, users at work, and misfortunes; then all must be as it should be.

`BRICKYARD_CHAOS_S` says for how long, `BRICKYARD_CHAOS_SEED` which run is done again.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.integration.kill.chaos import Misfortunes, Users
from tests.support import postgres
from tests.support.site import Site, started

SECONDS = float(os.environ.get("BRICKYARD_CHAOS_S", "60"))
pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(SECONDS * 4 + 300)]
CALLS = 12


def test_chaos() -> None:
    seed = int(os.environ.get("BRICKYARD_CHAOS_SEED") or random.randrange(1 << 32))
    print(f"seed {seed}: BRICKYARD_CHAOS_SEED={seed} make chaos")
    choose = random.Random(seed)
    site = Site(agents=4, database=postgres.cluster().database(), coordinators=2)
    with started(site):
        users = Users(site, choose)
        misfortunes = Misfortunes(site, choose, users)
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            for _ in range(CALLS):
                users.act()
            misfortunes.strike()
            for part in site.coordinators:
                part.api.settle(30)
            site.clean()
            users.mark()
        checked = users.check_marks()
        print(f"{len(misfortunes.done)} misfortunes {misfortunes.done}; calls {users.done}; {checked} contents checked")
        _tear_down(site)
        site.clean()
        assert site.api.usage() == {"volumes": 0, "snapshots": 0, "gigabytes": 0}


def _tear_down(site: Site) -> None:
    for row in site.truths.live("attachments"):
        site.api.delete(f"/brickyard/v1/attachments/{row['id']}")
    site.api.settle()
    for row in site.truths.live("snapshots"):
        site.api.delete(f"/v3/snapshots/{row['id']}")
    site.api.settle()
    for row in site.truths.live("volumes"):
        site.api.delete(f"/v3/volumes/{row['id']}")
