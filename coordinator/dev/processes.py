"""Children of `brickyard dev`: forked from one process that has imported everything, restarted when they die.

The parent has neither threads nor an event loop, so that forking stays safe for as long as it lives. A child ends when
its parent does, however that ends: it watches the reading end of a pipe that only the parent can write to.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.base.errors import BrickyardError

Report = Callable[[dict[str, Any]], None]
Body = Callable[[int, Report], int]
_STOP_GRACE_S = 15.0
_RESTARTS = 5
_RESTART_WINDOW_S = 60.0


@dataclass(slots=True)
class Child:
    """`body(life_fd, report)` runs in the child and returns its exit code."""

    name: str
    body: Body
    pid: int = 0
    reports: int = -1
    deaths: list[float] = field(default_factory=list)
    buffer: bytes = b""


class Processes:
    """Starts children, passes on their reports, restarts the dead, and stops all in reverse order."""

    def __init__(self, on_report: Callable[[Child, dict[str, Any]], None]) -> None:
        self._on_report = on_report
        self._children: list[Child] = []
        self._stopping = False
        self._life_read, self._life_write = os.pipe()
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(wake_write, False)
        self._wake_write = wake_write
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def start(self, name: str, body: Body) -> None:
        child = Child(name, body)
        self._children.append(child)
        self._fork(child)

    def run(self) -> int:
        """Watch until told to stop, or until a child can not be kept alive; returns the exit code."""
        failed = False
        while not self._stopping and not failed:
            self._wait(None)
            failed = not self._reap()
        self._stop_all()
        return 1 if failed else 0

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _fork(self, child: Child) -> None:
        read, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._become(child, write)
        os.close(write)
        os.set_blocking(read, False)
        child.pid, child.reports, child.buffer = pid, read, b""

    def _become(self, child: Child, report_fd: int) -> None:
        """Never returns: the child's whole life."""
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.setpgid(0, 0)
            for fd in (self._life_write, self._wake_read, self._wake_write):
                os.close(fd)
            for other in self._children:
                if other.reports >= 0:
                    os.close(other.reports)

            def report(message: dict[str, Any]) -> None:
                os.write(report_fd, json.dumps(message).encode() + b"\n")

            code = child.body(self._life_read, report)
        except BrickyardError as error:
            sys.stderr.write(f"{child.name}: {error}\n{error.remedy}\n")
            code = error.exit_code
        except BaseException:  # noqa: BLE001 - a child must never run on in its parent's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _wait(self, timeout: float | None) -> None:
        fds = {child.reports: child for child in self._children if child.reports >= 0}
        ready, _, _ = select.select([self._wake_read, *fds], [], [], timeout)
        for fd in ready:
            if fd == self._wake_read:
                os.read(self._wake_read, 4096)
            else:
                self._read(fds[fd])

    def _read(self, child: Child) -> None:
        data = os.read(child.reports, 65536)
        if not data:
            os.close(child.reports)
            child.reports = -1
            return
        *lines, child.buffer = (child.buffer + data).split(b"\n")
        for line in lines:
            self._on_report(child, json.loads(line))

    def _reap(self) -> bool:
        """Take in children that ended, and start them again; False when one dies over and over."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return True
            child = next((each for each in self._children if each.pid == pid), None)
            if child is None or self._stopping:
                continue
            child.pid = 0
            now = time.monotonic()
            child.deaths = [death for death in child.deaths if now - death < _RESTART_WINDOW_S] + [now]
            code = os.waitstatus_to_exitcode(status)
            said = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if len(child.deaths) > _RESTARTS or (code not in {0, 70} and code > 0):
                sys.stderr.write(f"{child.name} {said}; stopping.\n")
                return False
            sys.stderr.write(f"{child.name} {said}; starting it again.\n")
            if child.reports >= 0:
                os.close(child.reports)
            self._fork(child)

    def _stop_all(self) -> None:
        self._stopping = True
        deadline = time.monotonic() + _STOP_GRACE_S
        for child in reversed(self._children):
            if child.pid:
                _signal(child.pid, signal.SIGTERM)
        for child in reversed(self._children):
            if child.pid and not _gone(child.pid, deadline):
                _signal(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _gone(pid: int, deadline: float) -> bool:
    """Wait for a child's end until `deadline` (monotonic)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(fd)
    if not ready:
        return False
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return True
    return True
