"""A host whose agent is dead for good: what that means is said, it is given up, and nothing waits for it any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.site import Site, running, started

pytestmark = [pytest.mark.kill, pytest.mark.root]
BIN = Path(sys.executable).parent
LOOP = os.geteuid() == 0 and Path("/dev/loop-control").exists()


def brickyard(site: Site, *arguments: str) -> tuple[int, Any]:
    """The exit code, and what it answered as JSON."""
    password = (site.layout.coordinator_state / "admin-password").read_text().strip()
    cloud = {
        "OS_AUTH_URL": f"http://127.0.0.1:{site.api.port}/identity/v3", "OS_USERNAME": "admin",
        "OS_PASSWORD": password, "OS_PROJECT_NAME": "admin", "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
    }  # fmt: skip
    plain = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    command = [BIN / "brickyard", *arguments, "--json"]
    done = subprocess.run(
        command, env={**plain, **cloud}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout or done.stderr)


def test_a_dead_host_is_given_up_on_the_operators_word() -> None:
    with running(agents=3) as site:
        api, lost = site.api, site.api.made("doomed")
        dead = api.volume(lost)["os-vol-host-attr:host"].partition("@")[0]
        code, shown = brickyard(site, "host", "evict", dead, "--yes")
        assert (code, shown["error"]["code"]) == (5, "host.answers")
        site.agents[dead].kill()
        api.delete(f"/v3/volumes/{lost}")
        (waiting,) = api.operations(lost)[:1]
        code, shown = brickyard(site, "host", "evict", dead, "--dry-run")
        parts = {part["what"]: part for part in shown["parts"]}
        assert (code, shown["answers"], shown["evidence_needed"]) == (0, False, True)
        assert lost in parts["volumes"]["ids"]
        assert waiting["id"] in parts["operations"]["ids"]
        code, shown = brickyard(site, "host", "evict", dead, "--yes")
        assert (code, shown["error"]["code"]) == (5, "host.evidence-needed")
        code, shown = brickyard(site, "host", "evict", dead, "--yes", "--operator-says", "the machine burned")
        assert (code, shown["answers"]) == (0, False)
        assert api.wait(waiting["id"], 20)["state"] == "done"
        assert lost not in {row["id"] for row in api.volumes()}
        assert dead not in {host["id"] for host in api.get("/brickyard/v1/hosts")["hosts"]}
        code, shown = brickyard(site, "host", "evictions")
        assert [(row["host_id"], row["evidence"], row["words"]) for row in shown] == [
            (dead, "operator", "the machine burned")
        ]
        site.coordinator.kill()
        site.restart("coordinator")
        # It comes back although it is dead: nobody listens to it.
        site.agents[dead].start()
        after = api.made("after")
        assert not api.volume(after)["os-vol-host-attr:host"].startswith(dead)
        assert api.active() == []


@pytest.mark.skipif(not LOOP, reason="loop devices need root and /dev/loop-control")
def test_what_a_dead_host_had_attached_is_attached_elsewhere_soon() -> None:
    site = Site(agents=2, sets=("fleet.member_lease_s=2", "fleet.poll_interval_s=1"))
    for part in site.agents.values():
        part.sets = (*part.sets, f"backends.files.path={site.folder / 'shared'}", "backends.files.cluster_name=c1")
    with started(site):
        api, volume = site.api, site.api.made("v")
        dead = api.volume(volume)["os-vol-host-attr:host"].partition("@")[0]
        (alive,) = set(site.hosts) - {dead}
        api.post("/brickyard/v1/attachments", {"volume_id": volume, "host_id": dead})
        api.settle(60)
        assert [row["status"] for row in api.attachments()] == ["attached"]
        site.agents[dead].kill()
        began = time.monotonic()
        code, shown = brickyard(site, "host", "evict", dead, "--yes", "--operator-says", "its power is off")
        assert code == 0, shown
        print(f"evicted after {time.monotonic() - began:.1f} s")
        site.truths.eventually(lambda: _at(site, volume, alive), 15)  # who looks for idle ones does so every 30 s
        api.post("/brickyard/v1/attachments", {"volume_id": volume, "host_id": alive})
        api.settle(60)
        print(f"attached elsewhere {time.monotonic() - began:.1f} s after the death of its host")
        (row,) = api.attachments()
        assert (row["status"], row["host_id"]) == ("attached", alive)
        assert Path(row["device"]["device"]).is_block_device()
        api.delete(f"/brickyard/v1/attachments/{row['id']}")
        api.settle(60)
        assert api.volume(volume)["status"] == "available"


def _at(site: Site, volume: str, host: str) -> None:
    found = site.api.volume(volume)
    assert (found["os-vol-host-attr:host"].partition("@")[0], found["status"]) == (host, "available"), found
