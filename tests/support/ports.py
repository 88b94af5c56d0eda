"""Ports that no other test takes: each process has a range of its own, as long as it lives."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

# Below those that the kernel gives to whoever connects somewhere: one of them may be taken before it is listened on.
_FIRST, _LAST, _RANGE = 12_000, 32_000, 500


def free_port() -> int:
    """One that nobody listens on, and that this process has not named for a long time."""
    return _free(os.getpid())


@cache
def _own(process: int) -> itertools.cycle[int]:
    """The range of a process: a forked one has another."""
    folder = Path(tempfile.gettempdir(), f"brickyard-test-ports-{os.geteuid()}")
    folder.mkdir(exist_ok=True)
    for first in range(_FIRST, _LAST, _RANGE):
        taken = os.open(folder / str(first), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(taken)
            continue
        return itertools.cycle(range(first, first + _RANGE))  # The lock is held until the process ends.
    raise RuntimeError(f"every range of ports has its test: {folder}")


def _free(process: int) -> int:
    for port in itertools.islice(_own(process), _RANGE):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("all ports of this process are in use")
