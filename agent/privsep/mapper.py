"""Whether device-mapper is here; light, since every agent asks."""

from __future__ import annotations

import contextlib
import os

from agent.host import sysfs


def dm_crypt_available() -> bool:
    """Whether encrypted devices can be opened here: device-mapper in the kernel and cryptsetup on the host."""
    return sysfs.has_mapper() and any(os.access(f"{folder}/cryptsetup", os.X_OK) for folder in ("/usr/sbin", "/sbin"))


def load_mapper() -> None:
    """As root: opening the control node makes the kernel load device-mapper where that is a module."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC))
