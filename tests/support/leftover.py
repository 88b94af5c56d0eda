"""What is left of a test's folder once its processes are gone: mounts, loop devices, files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from agent.host import mounts, sysfs


def remove(folder: str | Path) -> None:
    for mount in reversed(mounts.mounts()):
        if Path(mount.point).is_relative_to(folder):
            subprocess.run(["umount", "-l", mount.point], check=False, capture_output=True)
    unbind(folder)
    shutil.rmtree(folder, ignore_errors=True)


def unbind(folder: str | Path) -> None:
    """Let go the loop devices of files in it."""
    for loop in sysfs.loop_devices():
        if Path(loop.backing_file).is_relative_to(folder):
            subprocess.run(["losetup", "-d", f"/dev/{loop.name}"], check=False)
