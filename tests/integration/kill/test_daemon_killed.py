"""A privileged daemon is killed alone: its agent ends with a word, is started again, and what was at work is done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.kill.kinds import KINDS
from tests.integration.kill.kinds.world import World
from tests.support.site import Part, Site, started

LOOP = os.geteuid() == 0 and Path("/dev/loop-control").exists()
pytestmark = [
    pytest.mark.kill, pytest.mark.root, pytest.mark.timeout(300),
    pytest.mark.skipif(not LOOP, reason="loop devices need root and /dev/loop-control"),
]  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with started(Site()) as site:
        yield World(site)


def daemons(part: Part) -> list[int]:
    """Its children: at a fault point no tool runs. One that nobody has called yet is a shell that waits."""
    tasks = Path(f"/proc/{part.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def stands_still(part: Part) -> None:
    """Only stopped: its fault point was passed."""
    state = Path(f"/proc/{part.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "T", state


@pytest.mark.parametrize(("kind", "point"), [
    ("attach", "agent.job.started"), ("attach", "agent.attachment.decided"), ("attach", "agent.attachment.attached"),
    ("attach", "agent.job.effect-done"), ("detach", "agent.job.started"), ("detach", "agent.attachment.decided"),
    ("detach", "agent.attachment.detached"), ("detach", "agent.job.effect-done"),
])  # fmt: skip
def test_at_each_stage(world: World, kind: str, point: str) -> None:
    site, what = world.site, KINDS[kind]
    part = site.agents[site.volume_host]
    ctx = what.prepare(world)
    part.arm(f"!{point}")
    with ThreadPoolExecutor(1) as user:
        asked = user.submit(what.act, world, ctx)
        site.truths.eventually(lambda: stands_still(part), 60)
        killed = daemons(part)
        assert killed, "it has no daemon"
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        part.go_on()
        code = part.died(60)
        assert code not in {0, -signal.SIGKILL}, part.tail()
        assert "a privileged daemon ended; the agent ends, too" in part.log.read_text()
        site.restart(part.name)
        asked.result(60)
    site.clean()
    what.ended(world, ctx)
    site.clean()
