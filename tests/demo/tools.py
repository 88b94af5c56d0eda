"""Tools as the demo runs them: secrets by descriptor, and another try where qemu fails at random."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

from demo.place import DemoFailed

_UNLUCKY = "Unable to get accurate CPU usage"
_TRIES = 100
_DEADLINE_S = 900  # for a gibibyte on an emulated processor


@contextlib.contextmanager
def by_fd(secret: bytes) -> Iterator[int]:
    """A descriptor from which a child reads the secret; nothing of it stands in argv or environment."""
    fd = os.memfd_create("secret")
    try:
        os.write(fd, secret)
        yield fd
    finally:
        os.close(fd)


def run(*argv: str, fds: tuple[int, ...] = ()) -> str:
    """What the tool wrote to its standard output; DemoFailed with its words."""
    for _ in range(_TRIES):
        for fd in fds:
            os.lseek(fd, 0, os.SEEK_SET)
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, pass_fds=fds, timeout=_DEADLINE_S)
        except FileNotFoundError as missing:
            raise DemoFailed(f"{argv[0]} is not installed; run make setup") from missing
        if done.returncode == 0:
            return done.stdout
        if _UNLUCKY not in done.stderr:
            break
    raise DemoFailed(f"{argv[0]} {argv[1]} failed: {done.stderr.strip()}")
