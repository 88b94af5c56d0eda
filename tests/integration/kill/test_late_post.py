"""A POST that was on its way when its coordinator died arrives after the next one has undone the work: refused."""

from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.support.api import AWAY
from tests.support.proxy import Proxy
from tests.support.site import Site, started

pytestmark = [pytest.mark.kill, pytest.mark.root]


def port_of(site: Site, host: str) -> int:
    return int(tomllib.loads(site.layout.agent_file(host).read_text())["agent"]["port"])


def test_a_post_held_back_until_after_the_undo_is_refused_by_epoch() -> None:
    site = Site(agents=1, agent_sets=("log.level=debug",))
    host = site.volume_host
    proxy = Proxy(port_of(site, host))
    site.agents[host].more["reach"] = proxy.port
    with proxy.relaying(), started(site):
        proxy.hold()
        with ThreadPoolExecutor(1) as user:
            asked = user.submit(_create, site)
            assert proxy.wait_held() > 100
            volume = asked.result(10)
            operation = site.api.operations(volume)[0]
            site.api.post(f"/brickyard/v1/operations/{operation['id']}/cancel", {})
        site.coordinator.kill()
        site.restart("coordinator")
        site.clean()
        ended = site.api.operations(volume)[0]
        assert ended["state"] == "cancelled"
        assert site.api.volume(volume)["status"] == "error"
        # Now the first coordinator's POST comes in, on the connection that it had opened.
        assert proxy.release() > 0
        site.clean()
        assert site.truths.journal(host, "SELECT * FROM jobs") == []
        assert [row["epoch"] for row in site.truths.journal(host, "SELECT epoch FROM epochs")] == [2]
        assert "stale-epoch" in site.agents[host].log.read_text()


def _create(site: Site) -> Any:
    with suppress(*AWAY):
        return site.api.create_volume("late")
