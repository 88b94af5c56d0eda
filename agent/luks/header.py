"""Read the LUKS header of either version, by rule."""

from __future__ import annotations

from agent.luks import luks1, luks2
from agent.luks.details import Details, Header
from agent.luks.errors import LuksVersion, NotLuks
from agent.luks.model import DEFAULT_LIMITS, KdfLimits
from agent.luks.window import Window

MAGIC = b"LUKS\xba\xbe"


def read(window: Window, limits: KdfLimits = DEFAULT_LIMITS, *, data_elsewhere: bool = False) -> Header:
    """Read and check the LUKS header at the start of `window`.

    `data_elsewhere` is for a header inside of another format (qcow2), whose window ends where the header ends.
    Raises a HeaderRefused subclass that names the broken rule.
    """
    head = window.read(0, 8)
    if head[:6] != MAGIC or len(head) < 8:
        raise NotLuks
    version = int.from_bytes(head[6:8], "big")
    if version == 1:
        return luks1.parse(window, limits, data_elsewhere=data_elsewhere)
    if version == 2 and not data_elsewhere:
        return luks2.parse(window, limits)
    raise LuksVersion(version=version)


def parse(window: Window, limits: KdfLimits = DEFAULT_LIMITS, *, data_elsewhere: bool = False) -> Details:
    """What `read` finds, without what is needed to open it."""
    return read(window, limits, data_elsewhere=data_elsewhere).details
