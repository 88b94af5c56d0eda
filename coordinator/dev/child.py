"""A child of `brickyard dev`: forked at the start from what is already loaded, or started afresh after a death.

Its one socket leads to the parent: it says there what the parent should print or pass on, and ends when it is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from agent.base import lean
from agent.base.errors import BrickyardError
from coordinator.dev.site import DevSite
from coordinator.dev.supervisor import line

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COORDINATOR = "coordinator"


class Parent:
    """The socket to the parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def tell(self, *fields: str) -> None:
        """One of the messages that `coordinator.dev.supervisor` knows."""
        self._connection.sendall(line(*fields))

    def token(self) -> str:
        """Wait for the join token; the parent's end is the end of this process, too."""
        text = b""
        while not text.endswith(b"\n"):
            more = self._connection.recv(65536)
            if not more:
                sys.exit(0)
            text += more
        return text.decode().strip()

    def follow(self) -> None:
        """Stop this process gracefully when the parent has ended; call inside the event loop."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            try:
                more = self._connection.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                loop.remove_reader(self._connection)
                os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(self._connection, readable)


def become(site: DevSite, name: str, sets: tuple[str, ...], connection: socket.socket) -> NoReturn:
    """The whole life of a child, from its fork on."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        code = _body(name)(site, name, sets, Parent(connection))
    except BrickyardError as error:
        sys.stderr.write(f"{name}: {error}\n{error.remedy}\n")
        code = error.exit_code
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - a child must never run on in its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _body(name: str) -> Callable[[DevSite, str, tuple[str, ...], Parent], int]:
    lean.prepare()
    if name == COORDINATOR:
        from coordinator.dev.central import run
    else:
        from coordinator.dev.agents import run
    return run


def main() -> NoReturn:
    """Started again: argv holds the site, the overrides, the child's name and the number of its socket."""
    folder, port, agents, sets, name, fd = sys.argv[1:]
    site = DevSite(Path(folder), int(port), int(agents))
    become(site, name, tuple(json.loads(sets)), socket.socket(fileno=int(fd)))


if __name__ == "__main__":
    main()
