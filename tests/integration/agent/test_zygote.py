"""Processes of the tests die with the test runner, however that is ended, and nothing of their folder stays."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leftover

TOP = Path(__file__).parents[3]
RUNNER = """
import signal, sys
from pathlib import Path
from tests.integration.agent.zygote import Zygote
zygote = Zygote("import signal", "    os.setpgid(0, 0), signal.signal(signal.SIGTERM, signal.SIG_IGN), signal.pause()")
zygote.removes(Path(sys.argv[1]))
print(zygote.fork({}, Path("/dev/null"))[0].pid, zygote._process.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="brickyard-test-", dir="/var/tmp"))
    yield made
    leftover.remove(made)


def mounts(below: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(below) in line]


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("group", [True, False])
def test_what_was_forked_dies_with_the_runner(folder: Path, number: signal.Signals, group: bool) -> None:
    (folder / "disk").mkdir()
    if os.geteuid() == 0:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", folder / "disk"], check=False, capture_output=True)
        assert bool(mounts(folder)) == (done.returncode == 0)
    words = [sys.executable, "-c", RUNNER, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=TOP, start_new_session=True) as runner:
        assert runner.stdout is not None
        pids = [os.pidfd_open(int(word)) for word in runner.stdout.readline().split()]
        (os.killpg if group else os.kill)(runner.pid, number)
        assert runner.wait(60) == -number
    for pid in pids:
        assert select.select([pid], [], [], 60)[0], "it outlives the test runner"
        os.close(pid)
    assert not folder.exists()
    assert not mounts(folder)
