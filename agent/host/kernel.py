"""Where the kernel's files are and how one of them is written: the one place that a simulated host takes over.

Readers (`agent.host.sysfs`, `ccw`, `zfcp`) take the folders from here; the privileged verbs write through here. A
simulator (`agent.host.simulator`) puts a tree of plain files and its own reactions in the kernel's place.
"""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from agent.host import udev


class Kernel:
    """The real one."""

    sys = Path("/sys")
    proc = Path("/proc")
    dev = Path("/dev")
    programs: tuple[str, ...] = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")

    def write(self, path: Path, text: str) -> None:
        """One write(2) of a whole value, as the kernel's attributes want it; OSError is the kernel's answer."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def multipath_claims(self, name: str) -> bool:
        """Whether a disk belongs to the multipath daemon, so that only its map may be used. Blocking."""
        return udev.claimed_by_multipath(name)

    def events(self, *subsystems: str) -> AbstractAsyncContextManager[udev.Events]:
        """What happens to devices of these subsystems from now on."""
        return udev.subscribed(subsystems=subsystems)


_current: Kernel = Kernel()


def current() -> Kernel:
    return _current


def use(kernel: Kernel) -> None:
    """For this process alone: a simulator, or the real kernel again."""
    global _current
    _current = kernel
