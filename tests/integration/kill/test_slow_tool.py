"""kill -9 of the agent and its daemons while a volume is written: the next writer waits for the end of the old."""

from __future__ import annotations

import os
import select
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.kill.kinds.world import PASSPHRASE, World
from tests.support.images import decrypted
from tests.support.site import running
from tests.support.truths import holders

pytestmark = [
    pytest.mark.kill,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img, cryptsetup"
    ),
]
TICKS = os.sysconf("SC_CLK_TCK")


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def started_at(pid: int) -> float:
    """When a process began, in seconds since the boot, to a hundredth."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19]) / TICKS


def writer_of(path: Path, besides: set[int], seconds: float = 20) -> int:
    """The process that writes this file, once some of it is written."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid in map(int, holders(str(path))):
            with suppress(OSError):
                if pid not in besides and path.stat().st_blocks:
                    return pid
        time.sleep(0.01)
    raise AssertionError(f"nobody writes to {path}")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class End(threading.Thread):
    """Notes when a process ended."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._fd, self.at = os.pidfd_open(pid), 0.0

    def run(self) -> None:
        select.select([self._fd], [], [])
        self.at = boot_time()
        os.close(self._fd)


def test_no_byte_of_the_old_writer_after_the_first_of_the_new() -> None:
    with running(agents=1, agent_sets=("jobs.rate_limit=67108864",)) as site:
        world, host = World(site), site.agents[site.volume_host]
        secret_type, image = world.encrypted_type(), world.image()
        volume = site.api.create_volume("slow", volume_type=secret_type, imageRef=image)
        partial = site.layout.volumes(host.name) / "partial" / volume
        old = writer_of(partial, set())
        end = End(old)
        end.start()
        family = [host.pid, *children(host.pid)]
        assert len(family) >= 2
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        host.died()
        site.restart(host.name, "jobs.rate_limit=134217728")
        new = writer_of(partial, {old})
        end.join(10)
        assert end.at, "the old writer lives on"
        assert started_at(new) + 1 / TICKS >= end.at - 0.02
        assert str(old) not in holders(str(site.layout.volumes(host.name)))
        site.clean()
        assert site.api.volume(volume)["status"] == "available"
        assert decrypted(site.folder, world.file(volume), PASSPHRASE, len(world.content())) == world.content()


def test_a_frozen_tool_that_outlives_the_agent_is_waited_for() -> None:
    """A tool that cannot die at once (a hung disk) is stood for by a process that holds what the tool inherits."""
    with running(agents=1) as site:
        world, host = World(site), site.agents[site.volume_host]
        secret_type, image = world.encrypted_type(), world.image()
        host.arm("agent.job.started")
        volume = site.api.create_volume("hung", volume_type=secret_type, imageRef=image)
        assert host.died() == -signal.SIGKILL
        lock = site.layout.agent_state(host.name) / "locks" / f"volume-{volume}.lock"
        held = os.open(lock, os.O_RDWR | os.O_CREAT)
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            site.restart(host.name)
            partial = site.layout.volumes(host.name) / "partial" / volume
            operation = site.api.operations(volume)[0]
            site.api.wait(operation["id"], 2)
            assert not partial.exists()
            assert site.api.volume(volume)["status"] == "downloading"
        finally:
            os.close(held)
        site.clean()
        assert site.api.volume(volume)["status"] == "available"
