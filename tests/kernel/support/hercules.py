"""What an operator would type at the emulator's console, ordered from inside the guest."""

from __future__ import annotations

import os

_ROOM = 1 << 20


def order(command: str) -> None:
    """`detach 0121`, `attach 0121 3390 dasd.0121`: begun within a second; what follows is seen in the guest."""
    fd = os.open(os.environ["BRICKYARD_MACHINE"], os.O_RDWR | os.O_CLOEXEC)
    try:
        written = os.pread(fd, _ROOM, 0).find(b"\0")
        os.pwrite(fd, f"{command}\n".encode(), written)
        os.fsync(fd)
    finally:
        os.close(fd)
