"""What an operator would type at the emulator's console, ordered from inside the guest."""

from __future__ import annotations

import os
import subprocess

from agent.host import ccw, udev

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


async def moved(bus_id: str, availability: str, command: str) -> None:
    """Order it, and wait until the channel tells of the device what is to be expected.

    Of a device that is taken away in the middle of a read, udev's for example, the emulator tells nothing for minutes.
    """
    subprocess.run(["udevadm", "settle", "--timeout=120"], check=True)
    async with udev.subscribed(subsystems=("ccw",)) as events:
        order(command)
        while (found := ccw.device(bus_id)) is None or found.availability != availability:
            assert await events.wait(lambda event: bus_id in event.path, 120), f"no news of {bus_id}"
