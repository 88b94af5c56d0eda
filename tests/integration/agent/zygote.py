"""Processes of ours that import once and fork for each start, as `brickyard dev` does; a start takes 0.1 s.

Forking daemons must happen before the first thread, which a test runner can not promise, so the forks come from a
small process of their own. No signal to the test runner's group reaches that; when the runner has died, in whatever
way, it ends what it has forked and takes away what was left.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

PROGRAM = """
import json, os, signal, socket, sys
{imports}
def main(request, ready):
{body}
door = socket.socket(fileno=int(sys.argv[1]))
children, folders = set(), []
while True:
    data, fds, _, _ = socket.recv_fds(door, 1 << 16, 2)
    if not data:
        break
    request = json.loads(data)
    if "wait" in request:
        door.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])).encode())
        children.discard(request["wait"])
        continue
    if "folder" in request:
        folders.append(request["folder"])
        continue
    pid = os.fork()
    if pid == 0:
        door.close()
        ready, log = fds
        os.dup2(log, 1), os.dup2(log, 2), os.close(log)
        code = 1
        try:
            code = main(request, ready) or 0
        except BaseException as error:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    for fd in fds:
        os.close(fd)
    children.add(pid)
    door.send(json.dumps(pid).encode())
for pid in children:
    os.kill(pid, signal.SIGKILL)
for pid in children:
    os.waitpid(pid, 0)
for folder in filter(os.path.isdir, folders):
    from tests.support.leftover import remove
    remove(folder)
"""


class Zygote:
    """`imports` are lines to run once, `body` (indented) is the function run by each fork; `ready` is a pipe in it.

    `python` and the folder to start in are those of another environment, where its processes are.
    """

    def __init__(
        self, imports: str, body: str, python: str | Path = sys.executable, folder: Path = Path(__file__).parents[3]
    ) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = PROGRAM.replace("{imports}", imports).replace("{body}", body)
        self._process = subprocess.Popen(
            [python, "-c", program, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            cwd=folder,
            start_new_session=True,
        )
        theirs.close()
        atexit.register(self.close)

    def close(self) -> None:
        self._door.close()
        self._process.wait(60)

    def removes(self, folder: Path) -> None:
        """Whatever is left of this folder when the test runner has died, with all mounts and loop devices in it."""
        self._door.send(json.dumps({"folder": str(folder)}).encode())

    def fork(self, request: dict[str, object], log: Path) -> tuple[Forked, int]:
        """Start one; the process and the reading end of its pipe."""
        read, write = os.pipe()
        with log.open("ab") as out:
            socket.send_fds(self._door, [json.dumps(request).encode()], [write, out.fileno()])
        pid = json.loads(self._door.recv(64))
        os.close(write)
        return Forked(pid, self._wait), read

    def _wait(self, pid: int) -> int:
        self._door.send(json.dumps({"wait": pid}).encode())
        return int(json.loads(self._door.recv(64)))


class Forked:
    """One forked process."""

    def __init__(self, pid: int, reap: Callable[[int], int]) -> None:
        self.pid, self._reap, self._code = pid, reap, None
        self._pidfd = os.pidfd_open(pid)

    @property
    def fd(self) -> int:
        """Readable once the process has ended."""
        return self._pidfd

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._code if self._code is not None or not _ended([self._pidfd], 0) else self._end()

    def wait(self, seconds: float) -> int:
        if self._code is not None:
            return self._code
        if not _ended([self._pidfd], seconds):
            raise TimeoutError(f"process {self.pid} still runs")
        return self._end()

    def send_signal(self, number: int) -> None:
        if self._code is None:
            os.kill(self.pid, number)

    def _end(self) -> int:
        self._code = self._reap(self.pid)
        os.close(self._pidfd)
        return self._code


def _ended(fds: Sequence[int], seconds: float) -> bool:
    return bool(select.select(fds, [], [], seconds)[0])
