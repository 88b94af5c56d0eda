"""A process of its own for what is needed now and then and takes large libraries: certificates and keys.

It is started at the first call and ends by itself a second after the last, so that a service which signs once in ten
days holds nothing of it meanwhile. Functions of one module are served; arguments and results are JSON. They must bear
to be called again: a call that meets the end of the process is made anew in the next one.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from agent.base.errors import BrickyardError, Temporary, from_body

_FIRST_S, _IDLE_S = 10.0, 1.0
_DEADLINE_S = 60.0
Served = Mapping[str, Callable[..., Any]]


class AsideFailed(Temporary):
    code = "aside.failed"
    sentence = "The process that does {module} did not answer: {reason}."
    hint = "It is tried again; look for an out-of-memory kill, and whether {python} can be started by this user."


class Aside:
    """The process that serves `module`, which has the functions in its mapping `SERVED`. Safe for threads."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._pid = 0
        self._reaper: threading.Thread | None = None

    def begin(self) -> None:
        """Start the process, for a call that will come within seconds; it loads its libraries meanwhile."""
        if _reachable():
            with self._lock:
                if self._channel is None:
                    self._start()

    def call(self, name: str, *args: Any) -> Any:
        """Blocking: the first call starts Python. What the function raised of ours; AsideFailed."""
        if not _reachable():
            served: Served = importlib.import_module(self._module).SERVED
            return served[name](*args)
        asked = json.dumps([name, *args]).encode() + b"\n"
        with self._lock:
            answer = self._ask(asked) or self._ask(asked)
        if answer is None:
            raise AsideFailed(module=self._module, reason="it ended", python=sys.executable)
        told = json.loads(answer)
        if "error" in told:
            importlib.import_module(told["errors"])
            raise from_body(told["error"])
        return told["result"]

    def _ask(self, asked: bytes) -> bytes | None:
        """The answer; None when the process has ended."""
        if self._channel is None:
            self._start()
        assert self._channel is not None
        try:
            self._channel.sendall(asked)
            answer = _line(self._channel)
        except TimeoutError as error:
            self._forget(kill=True)
            raise AsideFailed(module=self._module, reason="its time is up", python=sys.executable) from error
        except OSError:
            answer = b""
        if not answer:
            self._forget()
            return None
        return answer

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(_DEADLINE_S)
        command = [sys.executable, "-I", "-m", "agent.base.aside", self._module]
        dup = (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)
        quiet = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        try:
            self._pid = os.posix_spawn(command[0], command, _environment(), file_actions=[dup, quiet])
        except OSError as error:
            ours.close()
            raise AsideFailed(module=self._module, reason=str(error), python=sys.executable) from error
        finally:
            theirs.close()
        self._channel = ours
        self._reaper = threading.Thread(target=os.waitpid, args=(self._pid, 0), daemon=True)
        self._reaper.start()

    def close(self) -> None:
        """End the process now; afterwards there is no thread of it either. The next call starts another."""
        with self._lock:
            self._forget()
            if self._reaper is not None:
                self._reaper.join()

    def _forget(self, *, kill: bool = False) -> None:
        if kill:
            os.kill(self._pid, signal.SIGKILL)
        if self._channel is not None:
            self._channel.close()
        self._channel = None


def _reachable() -> bool:
    """Not so in an environment that only root can reach, once root was given up; then all is loaded here already."""
    return os.access(__file__, os.R_OK) and os.access(sys.executable, os.X_OK)


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}


def _line(channel: socket.socket) -> bytes:
    """A line without its end; nothing when the other side has closed."""
    parts = []
    while True:
        part = channel.recv(65536)
        if not part:
            return b""
        parts.append(part)
        if part.endswith(b"\n"):
            return b"".join(parts)[:-1]


def main() -> None:
    """Serve the module named by the argument on standard input, a socket, until nothing is asked any more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # private keys are in memory
    channel = socket.socket(fileno=0)
    served: Served = importlib.import_module(sys.argv[1]).SERVED
    patience_s = _FIRST_S
    while select.select([channel], [], [], patience_s)[0]:
        asked = _line(channel)
        if not asked:
            return
        channel.sendall(_answered(served, *json.loads(asked)))
        patience_s = _IDLE_S


def _answered(served: Served, name: str, *args: Any) -> bytes:
    try:
        told = {"result": served[name](*args)}
    except BrickyardError as error:
        told = {"error": error.to_body(), "errors": type(error).__module__}
    return json.dumps(told).encode() + b"\n"


if __name__ == "__main__":
    main()
