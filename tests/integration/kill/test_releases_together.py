"""Coordinator and agents of the release before work with those of this one, whichever is upgraded first: real processes
of both, work that was half done when its process was replaced, a device that is written to all the while."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.integration.kill.kinds import KINDS
from tests.integration.kill.kinds.attaching import an_attachment
from tests.integration.kill.kinds.world import World
from tests.support import release as released
from tests.support.api import AWAY, Refused
from tests.support.site import Part, Site, started, zygote

LOOP = os.geteuid() == 0 and Path("/dev/loop-control").exists()
pytestmark = [
    pytest.mark.kill,
    pytest.mark.root,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not LOOP, reason="attaches volumes: needs root and loop devices"),
    pytest.mark.skipif(
        not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img, cryptsetup"
    ),
]
BIN = Path(sys.executable).parent
# What that release does not know; all else is asked of both.
LATER = {"0.1": {"rekey", "reimage", "manage-encrypted", "detach-forced"}}

# When all is of this release: what the other did not know, and what goes on with what it made.
AFTERWARDS = ("create-encrypted", "rekey", "extend", "detach", "detach-forced")


def of_release(site: Site, name: str) -> None:
    for part in site.parts.values():
        part.forked_by = partial(released.zygote, name)


def work(world: World, kinds: Iterable[str]) -> None:
    """Each kind of operation from its beginning to its end, with what must have come of it."""
    for name in kinds:
        kind = KINDS[name]
        ctx = kind.prepare(world)
        world.site.api.settle(120)
        kind.act(world, ctx)
        world.site.api.settle(120)
        kind.ended(world, ctx)


def dies_at_work(site: Site, part: Part, point: str) -> str:
    """A volume whose making that process leaves half done."""
    name = f"cut-{part.name}"
    part.arm(point)
    with ThreadPoolExecutor(1) as user:
        asked = user.submit(_create, site, name)
        part.died(60)
        asked.result(120)
    return name


def _create(site: Site, name: str) -> None:
    with suppress(*AWAY, Refused):
        site.api.create_volume(name)


def upgrade_coordinator(site: Site) -> None:
    cut = dies_at_work(site, site.coordinator, "coordinator.job.before-post")
    state = f"--set=coordinator.state_dir={site.layout.coordinator_state}"
    words = [BIN / "brickyard-coordinator", "db", "upgrade", state]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site.coordinator.forked_by = zygote
    site.restart("coordinator")
    site.coordinator.heard("up")
    site.api.login()
    finished(site, cut)


def upgrade_agents(site: Site) -> None:
    for host, part in site.agents.items():
        cut = dies_at_work(site, part, "agent.job.effect-done") if host == site.volume_host else None
        if cut is None:
            part.stop()
        part.forked_by = zygote
        site.restart(host)
        if cut is not None:
            finished(site, cut)


def finished(site: Site, name: str) -> None:
    site.api.settle(120)
    assert [one["status"] for one in site.api.volumes() if one["name"] == name] == ["available"]


@contextmanager
def written(device: Path) -> Iterator[None]:
    """Somebody writes to the device all the while, and reads what he wrote."""
    stop, failed = threading.Event(), []

    def write() -> None:
        try:
            fd = os.open(device, os.O_RDWR | os.O_SYNC)
            number = 0
            while not stop.wait(0.1):
                number += 1
                block = number.to_bytes(8, "big") * 512
                os.pwrite(fd, block, 4096 * (number % 1024))
                assert os.pread(fd, 4096, 4096 * (number % 1024)) == block
            os.close(fd)
        except (OSError, AssertionError) as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()
    assert not failed, failed


@contextmanager
def old_site(release: str) -> Iterator[tuple[World, set[str]]]:
    """All of that release, with an attached volume that is in use; this release's at the end, and clean."""
    site = Site(agents=2)
    of_release(site, release)
    with started(site):
        world = World(site)
        used = an_attachment(world)
        (attached,) = [one for one in site.api.attachments() if one["id"] == used["attachment"]]
        with written(Path(attached["device"]["device"])):
            yield world, KINDS.keys() - LATER[release]
        site.api.delete(f"/brickyard/v1/attachments/{used['attachment']}")
        site.clean()


@pytest.mark.parametrize("release", released.releases())
def test_a_coordinator_that_is_upgraded_first_speaks_to_agents_of_before(release: str) -> None:
    with old_site(release) as (world, known):
        site = world.site
        work(world, ["create", "create-encrypted", "snapshot"])
        upgrade_coordinator(site)
        work(world, known)
        # What such an agent does not know is refused, and the volume stays as it was.
        ctx = KINDS["rekey"].prepare(world)
        with suppress(Refused):
            KINDS["rekey"].act(world, ctx)
        site.api.settle(120)
        assert world.key(ctx["volume"]) == ctx["key"]
        assert site.api.volume(ctx["volume"])["status"] == "available"
        upgrade_agents(site)
        work(world, AFTERWARDS)


@pytest.mark.parametrize("release", released.releases())
def test_agents_that_are_upgraded_first_serve_a_coordinator_of_before(release: str) -> None:
    with old_site(release) as (world, known):
        work(world, ["create", "create-encrypted", "snapshot"])
        upgrade_agents(world.site)
        work(world, known)
        upgrade_coordinator(world.site)
        work(world, AFTERWARDS)
