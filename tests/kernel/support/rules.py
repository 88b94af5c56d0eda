"""Our udev rules and the user that they name, as on every host with an agent."""

from __future__ import annotations

import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.host import udev
from tests.kernel.support.initiator import sh

_RULES = Path("/etc/udev/rules.d/12-brickyard.rules")


@contextmanager
def installed() -> Iterator[None]:
    if _RULES.exists() or not udev.udevd_runs():
        yield
        return
    if not any(user.pw_name == "brickyard" for user in pwd.getpwall()):
        sh("useradd --system brickyard")
    shutil.copy(Path(__file__).parents[3] / "udev" / _RULES.name, _RULES)
    sh("udevadm control --reload")
    try:
        yield
    finally:
        _RULES.unlink()
        sh("udevadm control --reload")
