"""The parent of a development site: a script that imports next to nothing, so that it costs next to nothing.

`brickyard dev` forks the children and then becomes this by exec, so they are its children. It prints what they say,
writes the `openrc`, hands join tokens on, starts a child that died again (as a fresh process), and stops all.
A child ends when its socket to here is closed, however that happened.

Its words: the file of the `openrc`; NAME PID FD OVERRIDES of each child, in order of their start; `--`; the command
that starts a child anew (its overrides, name and fd are appended).

What a child says is a line of fields: `say` or `greet` and lines to print (a greeting once), `openrc` and its text,
`token`, a child's name and its join token. A child hears one line, its token.
"""

from __future__ import annotations

import os
import select
import sys
import time

# What stands behind the public modules: those bring enum with them, which is more than this whole program.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
else:
    import _signal as signal
    import _socket as socket

_STOP_GRACE_S = 15.0
_RESTARTS = 5
_RESTART_WINDOW_S = 60.0
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


_FIELD, _NEWLINE = "\x1f", "\x1e"


def line(*fields: str) -> bytes:
    """Fields as a line."""
    return _FIELD.join(fields).replace("\n", _NEWLINE).encode() + b"\n"


def fields(said: bytes) -> list[str]:
    """The fields of a line (without its end)."""
    return said.decode().replace(_NEWLINE, "\n").split(_FIELD)


class Child:
    """`fd`: our end of its socket; -1 when it is closed."""

    def __init__(self, name: str, pid: int, fd: int, sets: str) -> None:
        self.name, self.pid, self.fd, self.sets = name, pid, fd, sets
        self.deaths: list[float] = []
        self.buffer = b""


class Supervisor:
    def __init__(self, openrc: str, children: list[Child], again: list[str]) -> None:
        self._openrc = openrc
        self._children = children
        self._again = again
        self._stopping = False
        self._greeted = False
        self._tokens: dict[str, str] = {}
        self._wake, wake_write = os.pipe()
        for fd in (self._wake, wake_write):
            os.set_blocking(fd, False)
        for child in children:
            os.set_inheritable(child.fd, False)
        for number in _STOPS:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)  # they were blocked before the exec, to lose none

    def run(self) -> int:
        """Watch until told to stop, or until a child can not be kept alive; returns the exit code."""
        failed = not self._reap()
        while not self._stopping and not failed:
            self._wait()
            failed = not self._reap()
        self._stop_all()
        return 1 if failed else 0

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _wait(self) -> None:
        fds = {child.fd: child for child in self._children if child.fd >= 0}
        ready, _, _ = select.select([self._wake, *fds], [], [])
        for fd in ready:
            if fd == self._wake:
                os.read(fd, 4096)
            else:
                self._read(fds[fd])

    def _read(self, child: Child) -> None:
        try:
            data = os.read(child.fd, 65536)
        except ConnectionResetError:
            data = b""
        if not data:
            os.close(child.fd)
            child.fd = -1
            return
        *lines, child.buffer = (child.buffer + data).split(b"\n")
        for said in lines:
            self._heard(*fields(said))

    def _heard(self, kind: str, *given: str) -> None:
        if kind == "openrc":
            _write_secret(self._openrc, given[0])
        elif kind == "say":
            _say(*given)
        elif kind == "greet" and not self._greeted:
            self._greeted = True
            _say(*given)
        elif kind == "token":
            name, self._tokens[name] = given
            for child in self._children:
                if child.name == name:
                    self._hand_token(child)

    def _hand_token(self, child: Child) -> None:
        token = self._tokens.get(child.name)
        if token is None or child.fd < 0:
            return
        try:
            os.write(child.fd, token.encode() + b"\n")
        except OSError:
            return  # it has just died; the next one gets the token

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
            if child is None:
                continue
            child.pid = 0
            if self._stopping:
                continue
            self._last_words(child)
            now = time.monotonic()
            child.deaths = [death for death in child.deaths if now - death < _RESTART_WINDOW_S] + [now]
            code = os.waitstatus_to_exitcode(status)
            said = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if len(child.deaths) > _RESTARTS or (code not in {0, 70} and code > 0):
                sys.stderr.write(f"{child.name} {said}; stopping.\n")
                return False
            sys.stderr.write(f"{child.name} {said}; starting it again.\n")
            self._start_again(child)

    def _last_words(self, child: Child) -> None:
        """Read what it said before it died; a child of its own may hold the other end open for a while yet."""
        while child.fd >= 0 and select.select([child.fd], [], [], 0)[0]:
            self._read(child)
        if child.fd >= 0:
            os.close(child.fd)
            child.fd = -1

    def _start_again(self, child: Child) -> None:
        ours, theirs = socket.socketpair()
        command = [*self._again, child.sets, child.name, str(theirs.fileno())]
        os.set_inheritable(theirs.fileno(), True)
        # The child lifts the block when it is ready to be told; till then nothing is lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            child.pid = os.posix_spawn(command[0], command, dict(os.environ), setpgroup=0)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        theirs.close()
        child.fd, child.buffer = ours.detach(), b""
        self._hand_token(child)

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


def _say(*lines: str) -> None:
    sys.stdout.write("".join(text + "\n" for text in lines))
    sys.stdout.flush()


def _write_secret(path: str, text: str) -> None:
    """Replace a file that only its owner can read, whole or not at all."""
    temp = f"{path}.new"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w") as file:  # noqa: PTH123 - a descriptor
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temp, path)  # noqa: PTH105 - pathlib would double the size of this process


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _gone(pid: int, deadline: float) -> bool:
    """Wait for a child's end until `deadline` (monotonic), and take it in."""
    fd = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(fd)
    if not ready:
        return False
    os.waitpid(pid, 0)
    return True


def main() -> int:
    openrc, *words = sys.argv[1:]
    end = words.index("--")
    children = [Child(words[at], int(words[at + 1]), int(words[at + 2]), words[at + 3]) for at in range(0, end, 4)]
    return Supervisor(openrc, children, words[end + 1 :]).run()


if __name__ == "__main__":
    sys.exit(main())
