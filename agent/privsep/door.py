"""A privileged daemon that is asleep: a shell that waits for one line, and becomes the daemon at the first call.

Most agents never need one between two restarts, and a shell is a hundredth of the daemon's size. It is started by root
before the agent drops, with arguments that nothing can change any more; it reads nothing but that line, and ends with
the agent. What the daemon may keep of root it decides itself, when it starts, as ever.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agent.privsep import limits as allowed
from agent.privsep.errors import DaemonLost, PrivilegeUnavailable

if TYPE_CHECKING:
    from oslo_privsep.priv_context import PrivContext

_SHELL = "/bin/sh"
_SLEEP = 'read -r _ || exit 0; exec "$@"'
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
# The daemon ends when its socket closes. A Ctrl-C meant for the agent must not take it away before.
_DEATH_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Door:
    """The sleeping daemon of one context. `life` is a descriptor that is at its end once the daemon has ended."""

    def __init__(self, name: str, limits: allowed.Limits, file: Path | None = None) -> None:
        """Start the shell; `file` is where the limits may be read again. PrivilegeUnavailable when that fails."""
        self.name = name
        self._lock = threading.Lock()
        self._opened = False
        self._channel, theirs = socket.socketpair()
        woken, self._wake = os.pipe()
        self.life, alive = os.pipe()
        level = logging.getLogger().getEffectiveLevel()
        settled = [name, str(theirs.fileno()), str(alive), str(level), allowed.to_text(limits), str(file or "")]
        try:
            for fd in (theirs.fileno(), alive):
                os.set_inheritable(fd, True)
            self.pid = os.posix_spawn(
                _SHELL,
                ["sh", "-c", _SLEEP, f"brickyard-{name}", sys.executable, "-I", "-m", "agent.privsep.daemon", *settled],
                _ENVIRONMENT,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, woken, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                ],
                setsigmask=_DEATH_SIGNALS,
            )
        except OSError as error:
            raise PrivilegeUnavailable(verb="start", reason=f"{_SHELL} did not start ({error})") from error
        finally:
            theirs.close()
            os.close(woken)
            os.close(alive)

    def open(self, context: PrivContext) -> None:
        """Wake the daemon unless it is awake, and give the context its channel. DaemonLost when it has ended."""
        from oslo_privsep.daemon import FailedToDropPrivileges

        with self._lock:
            if context.channel is not None:
                return
            if self._opened:
                raise DaemonLost(context=self.name)
            self._opened = True
            try:
                os.write(self._wake, b"\n")
                context.channel = _channel(self._channel, context)
            except (FailedToDropPrivileges, BrokenPipeError) as error:
                raise DaemonLost(context=self.name) from error
            finally:
                os.close(self._wake)


def _channel(connection: socket.socket, context: PrivContext) -> Any:
    """The library's client of a daemon at the other end (its public classes would start one); it has answered."""
    from oslo_privsep import daemon

    class Channel(daemon._ClientChannel):
        def _reader_main(self, reader: Any) -> None:
            super()._reader_main(cast("Any", _until_reset(reader)))

    return Channel(connection, context)


def _until_reset(messages: Iterator[Any]) -> Iterator[Any]:
    """A daemon that dies with a call unread resets the connection: the end, or its callers would wait for ever."""
    with suppress(ConnectionResetError):
        yield from messages
