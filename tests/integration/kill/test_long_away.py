"""A host is away for long: calls are answered at once, the work outlives the coordinator, and is done once at the end.

`BRICKYARD_AWAY_S` says for how many seconds it is away; an operator thinks of an hour.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from typing import Any

import pytest

from tests.support.site import Site, running

AWAY_S = float(os.environ.get("BRICKYARD_AWAY_S", "3"))
pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.timeout(600 + AWAY_S)]
EACH = 3


def test_what_was_asked_of_it_meanwhile_is_done_once_when_it_is_back() -> None:
    with running(agents=1) as site:
        api, host = site.api, site.agents[site.volume_host]
        grown, taken, gone, freed = ([api.made(f"{name}{n}") for n in range(EACH)] for name in ("g", "t", "d", "f"))
        for volume in freed:
            api.post("/v3/snapshots", {"snapshot": {"volume_id": volume, "name": "old"}})
        api.settle(120)
        old = [row["id"] for row in api.get("/v3/snapshots")["snapshots"]]
        host.kill()
        before, began = _ended(site), time.monotonic()
        for volume in grown:
            api.post(f"/v3/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
        for volume in taken:
            api.post("/v3/snapshots", {"snapshot": {"volume_id": volume, "name": "new"}})
        for volume in gone:
            api.delete(f"/v3/volumes/{volume}")
        for snapshot in old:
            api.delete(f"/v3/snapshots/{snapshot}")
        print(f"{4 * EACH} calls answered in {time.monotonic() - began:.2f} s")
        asked = {row["id"] for row in api.active()}
        assert len(asked) == 4 * EACH
        site.truths.eventually(lambda: _all_wait(site, asked), 120)
        _pass(began + AWAY_S / 2)
        # Nothing of it is only in memory.
        site.coordinator.kill()
        site.restart("coordinator")
        _pass(began + AWAY_S)
        site.truths.eventually(lambda: _all_wait(site, asked), 120)
        print(f"away for {time.monotonic() - began:.0f} s")
        site.restart(host.name)
        api.settle(300)
        assert {api.wait(one, 0)["state"] for one in asked} == {"done"}
        assert _ended(site) - before == Counter(dict.fromkeys(asked, 1)), "not each was done once"
        assert {row["size"] for row in api.volumes() if row["id"] in grown} == {2}
        assert not {row["id"] for row in api.volumes()} & set(gone)
        assert {row["volume_id"] for row in api.get("/v3/snapshots")["snapshots"]} == set(taken)
        site.clean()


def _ended(site: Site) -> Counter[str]:
    """How many jobs the host has ended, by their operation."""
    log = site.agents[site.volume_host].log.read_text()
    return Counter(re.findall(r"job ended .*? operation=(\S+) ", log))


def _all_wait(site: Site, asked: set[str]) -> None:
    found: list[dict[str, Any]] = site.api.active()
    assert {row["id"] for row in found} == asked
    assert all(row["waiting"] for row in found), found


def _pass(until: float) -> None:
    """Nobody tells of the end of an hour."""
    time.sleep(max(0.0, until - time.monotonic()))
