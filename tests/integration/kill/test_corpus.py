"""Half-done work of each release, as it lay in databases and journals when its processes were killed, is brought to
its end by this release: every resource stable, rows, files and kernel agreeing."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.corpus import half
from tests.support.site import started

pytestmark = [pytest.mark.kill, pytest.mark.root]
LOOP = os.geteuid() == 0 and Path("/dev/loop-control").exists()
STEPS = {"create_volume", "extend_volume", "create_snapshot", "delete_snapshot", "delete_volume", "attach_host",
         "detach_host", "upload_image", "delete_image"}  # fmt: skip


def lost_device(case: dict[str, Any]) -> bool:
    """A device that was attached when the rows were frozen; it did not come along."""
    jobs = case["journal"]["jobs"]
    return any(row["device"] for row in case["journal"]["attachments"]) and any(job["state"] == "done" for job in jobs)


@pytest.mark.parametrize("release", half.releases())
def test_half_done_work_of_a_release_is_finished(release: str) -> None:
    cases = {name: case for name, case in half.loaded(release).items() if not lost_device(case)}
    if not LOOP:
        cases = {name: case for name, case in cases.items() if not name.startswith(("attach", "detach"))}
    with started(half.new_site()) as site:
        for part in reversed(site.parts.values()):
            part.stop()
        half.put(site, list(cases.values()))
        for part in site.parts.values():
            part.begin()
        site.coordinator.heard("up")
        site.clean()
        states = {row["id"]: row["state"] for row in site.truths.rows("SELECT id, state FROM operations")}
        ended = {name: states[case["coordinator"]["operations"][0]["id"]] for name, case in cases.items()}
        assert ended == {name: case["ends"] for name, case in cases.items()}
        for attachment in site.api.attachments():
            site.api.delete(f"/brickyard/v1/attachments/{attachment['id']}")
        site.clean()


@pytest.mark.parametrize("release", half.releases())
def test_every_kind_stands_in_every_state_there(release: str) -> None:
    found = [case["coordinator"]["operations"][0] for case in half.loaded(release).values()]
    assert {operation["kind"] for operation in found} == STEPS
    states = Counter(operation["state"] for operation in found)
    assert states["running"] > 20
    assert states["undoing"] > 2
    jobs = Counter(job["state"] for case in half.loaded(release).values() for job in case["journal"]["jobs"])
    assert {"queued", "done"} <= jobs.keys(), jobs
