"""What is left of a test's folder once its processes are gone: mounts, loop devices, files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from agent.host import sysfs


def remove(folder: str | Path) -> None:
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        at = Path(line.split()[1])
        if at.is_relative_to(folder):
            subprocess.run(["umount", "-l", at], check=False, capture_output=True)
    unbind(folder)
    shutil.rmtree(folder, ignore_errors=True)


def unbind(folder: str | Path) -> None:
    """Let go the loop devices of files in it."""
    for loop in sysfs.loop_devices():
        if Path(loop.backing_file).is_relative_to(folder):
            subprocess.run(["losetup", "-d", f"/dev/{loop.name}"], check=False)
