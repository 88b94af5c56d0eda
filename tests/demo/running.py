"""The site of the demo: `brickyard dev` with a coordinator and two agents, seen from outside."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from demo.guardian import descendants
from demo.place import DemoFailed, Place

COMMAND = Path(sys.executable).parent / "brickyard"
START_S, STOP_S = 60.0, 20.0


class Site:
    """One run of `brickyard dev --agents 2`; host-a keeps the images, volumes land on host-b."""

    def __init__(self, place: Place) -> None:
        self.place, self.folder = place, place.site
        self.log = place.home / "site.log"
        self._started = time.monotonic()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OS_", "XDG_", "PYTEST"))
        }
        for name in ("TMPDIR", "TEMP", "TMP"):
            environment[name] = str(place.tmp)
        environment["HOME"] = str(place.tmp)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [COMMAND, "dev", "--state-dir", self.folder, "--agents", "2", "--port", str(_free_port())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=place.home,
            )  # fmt: skip

    def ready(self) -> float:
        """Wait for the line `ready`; seconds since the start of the process."""
        self._log_says(r"^ready$", START_S)
        return time.monotonic() - self._started

    @property
    def login(self) -> dict[str, str]:
        """The OS_* variables of the site's openrc."""
        words = shlex.split((self.folder / "openrc").read_text())
        return dict(word.split("=", 1) for word in words if word.startswith("OS_"))

    @property
    def volumes(self) -> Path:
        return self.folder / "host-b" / "volumes"

    @property
    def images(self) -> Path:
        return self.folder / "host-a" / "images"

    @property
    def coordinator(self) -> int:
        """The process id that holds the lock of the coordinator's database."""
        return int((self.folder / "coordinator" / "coordinator.db.lock").read_text())

    def agent(self, host: str) -> int:
        """The process id that holds the lock of an agent's state directory."""
        return int((self.folder / host / "state" / "agent.lock").read_text())

    def kill(self, pid: int, back: Callable[[], int]) -> int:
        """kill -9, then wait until `brickyard dev` has put another process in its place; returns its id."""
        os.kill(pid, signal.SIGKILL)
        return self._replaced(pid, back)

    def _replaced(self, pid: int, back: Callable[[], int]) -> int:
        def there() -> int:
            try:
                return back()
            except (FileNotFoundError, ValueError):
                return pid

        wait_until(f"process {pid} replaced", START_S, lambda: there() != pid, self.check)
        return there()

    def stop(self) -> float:
        """SIGTERM; DemoFailed when it does not end well, or leaves a process behind. Seconds that it took."""
        started, below = time.monotonic(), descendants(self._process.pid)
        self._process.terminate()
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired as still:
            raise DemoFailed(f"brickyard dev did not stop within {STOP_S:.0f} s of SIGTERM") from still
        if code != 0:
            raise DemoFailed(f"brickyard dev ended with exit code {code}:\n{self.tail()}")
        wait_until("no process left", 5, lambda: not [pid for pid in below if _alive(pid)], lambda: None)
        return time.monotonic() - started

    def check(self) -> None:
        """DemoFailed when the site has ended by itself."""
        if self._process.poll() is not None:
            raise DemoFailed(f"brickyard dev ended with exit code {self._process.returncode}:\n{self.tail()}")

    def tail(self, lines: int = 25) -> str:
        """The last lines that the site wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _log_says(self, pattern: str, seconds: float) -> None:
        wait_until(
            f"{pattern!r} in the log", seconds,
            lambda: re.search(pattern, self.log.read_text(errors="replace"), re.MULTILINE) is not None, self.check,
        )  # fmt: skip


def wait_until(what: str, seconds: float, ready: Callable[[], bool], check: Callable[[], None]) -> None:
    """Look until `ready()`; DemoFailed naming `what` after `seconds`, or as `check()` says."""
    deadline = time.monotonic() + seconds
    while not ready():
        check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_port() -> int:
    """A port that nobody has now; a restarted coordinator comes back to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
