"""A host that was evicted comes back: what was ended meanwhile is taken from it, what only a person can judge stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.kill.test_evict import brickyard
from tests.support.site import Site, running

pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.timeout(400)]


def eventually(found: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return answer


def evicted(site: Site, host: str) -> None:
    code, shown = brickyard(site, "host", "evict", host, "--yes", "--operator-says", "the machine burned")
    assert code == 0, shown
    site.api.settle()


def enrolled_again(site: Site, host: str) -> None:
    """As an operator does it: a token for that name, then `brickyard-agent join` and a start."""
    code, shown = brickyard(site, "host", "token", host, "--address", "127.0.0.1")
    assert code == 0, shown
    site.agents[host].more["token"] = shown["token"]
    for old in (site.layout.agent_state(host) / "identity").glob("certificate*.pem"):
        old.unlink()
    site.agents[host].start()


def held(site: Site, host: str, kind: str = "volumes") -> set[str]:
    return {path.name.partition(".")[0] for path in (site.layout.volumes(host) / kind).iterdir()}


def issue_of(site: Site, code: str) -> dict[str, Any] | None:
    return next((one for one in site.api.get("/brickyard/v1/issues")["issues"] if one["code"] == code), None)


def test_what_was_ended_is_taken_and_what_may_be_the_only_copy_stays() -> None:
    with running(agents=1) as site:
        api, host = site.api, site.hosts[0]
        gone, kept, forgotten, used = (api.made(name) for name in ("gone", "kept", "forgotten", "used"))
        for volume in (gone, kept):
            api.post("/v3/snapshots", {"snapshot": {"volume_id": volume, "name": f"of-{volume}"}})
        api.settle()
        snapshots = {row["volume_id"]: row["id"] for row in api.get("/v3/snapshots")["snapshots"]}
        api.post("/brickyard/v1/attachments", {"volume_id": used, "host_id": host})
        api.settle()
        site.agents[host].arm("agent.job.journaled")
        secret = api.post("/v3/volumes", {"volume": {"size": 1, "volume_type": api.encrypted_type()}})["volume"]["id"]
        site.agents[host].died()
        assert len(site.truths.journal(host, "SELECT * FROM attachments")) == 1
        evicted(site, host)
        api.delete(f"/v3/volumes/{gone}?cascade=true")
        api.delete(f"/v3/snapshots/{snapshots[kept]}")
        api.post(f"/brickyard/v1/volumes/{forgotten}/forget", {"dry_run": False, "words": "the disk is scrap"})
        api.settle()
        # By itself it is not listened to, and nothing is taken from it.
        site.agents[host].start()
        assert len(held(site, host)) == 4
        site.agents[host].kill()
        enrolled_again(site, host)
        eventually(lambda: gone not in held(site, host))
        eventually(lambda: held(site, host, "snapshots") == set())
        eventually(lambda: not site.truths.journal(host, "SELECT * FROM attachments"))
        api.settle()
        done = eventually(lambda: brickyard(site, "host", "evictions")[1][0]["cleared_at"] is not None)
        assert done
        # Data of a volume that was forgotten without a deletion, and of those whose rows live, are untouched.
        assert held(site, host) >= {kept, forgotten, used}
        issue = eventually(lambda: issue_of(site, "host.returned"))
        assert issue["resource_id"] == host
        assert issue["details"]["taken"] == {"attachments": 1, "snapshots": 2, "volumes": 1, "jobs": 1}
        assert secret in {row["id"] for row in api.volumes()}
        for volume in (kept, used):
            code, shown = brickyard(site, "volume", "repair", volume, "--yes")
            assert code == 0, shown
            assert api.volume(volume)["status"] == "available"


def test_killed_while_it_is_cleared_it_is_cleared_all_the_same() -> None:
    with running(agents=1) as site:
        api, host = site.api, site.hosts[0]
        gone = [api.made(f"gone-{number}") for number in range(6)]
        kept = api.made("kept")
        site.agents[host].kill()
        evicted(site, host)
        for volume in gone:
            api.delete(f"/v3/volumes/{volume}")
        api.settle()
        enrolled_again(site, host)
        eventually(lambda: len(held(site, host)) < 7)
        site.agents[host].kill()
        site.coordinator.kill()
        site.restart("coordinator")
        site.agents[host].start()
        eventually(lambda: held(site, host) == {kept})
        api.settle()
        taken = eventually(lambda: (one := brickyard(site, "host", "evictions")[1][0])["cleared_at"] and one["taken"])
        assert taken == {"volumes": 6}
