"""The demo stopped by a signal, at several moments: no process, loop device, mount or file is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERRUPTED = 130
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the demo mounts a file system of its own"),
    pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the demo works; unprivileged processes must be able to enter it."""
    path = Path(tempfile.mkdtemp(prefix="brickyard-interrupted-", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("1. ", signal.SIGINT),
        ("convert", signal.SIGTERM),
        pytest.param("2. ", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("/dev/loop", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("killed in the middle", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("13. ", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(300)
def test_stopped_at_a_moment(folder: Path, moment: str, number: signal.Signals) -> None:
    mark = f"BRICKYARD_DEMO_DIR={folder}"
    before = set(os.listdir("/dev/shm"))
    demo = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "demo" / "run.py"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True, env={**os.environ, "BRICKYARD_DEMO_DIR": str(folder)},
    )  # fmt: skip
    assert demo.stdout is not None
    said = []
    for line in demo.stdout:
        said.append(line)
        if moment in line and not (moment == "/dev/loop" and "ok" in line):
            break
    else:
        pytest.fail("".join(said))
    names = {entry.name for entry in folder.iterdir()}
    demo.send_signal(number)
    drain = threading.Thread(target=demo.stdout.read)
    drain.start()
    code = demo.wait(60)
    drain.join(10)
    demo.stdout.close()

    assert code == INTERRUPTED
    assert len(names) == 1
    assert not list(folder.iterdir())
    assert not {name for name in names if name in set(os.listdir("/dev/shm")) - before}
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert not [path for path in Path("/sys/block").glob("loop*/loop/backing_file") if str(folder) in _read(path)]
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _read(Path(f"/proc/{pid}/environ"))]


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""
