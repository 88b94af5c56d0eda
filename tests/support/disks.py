"""A small file system for each agent, which a test can fill; only for root."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_FILLER = "filler"


class SmallDisk:
    """`mib` of ext4 in a file, mounted at a folder that belongs to the services' user. `close()` takes it away."""

    def __init__(self, image: Path, at: Path, mib: int, owner: tuple[int, int]) -> None:
        self.at = at
        image.parent.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(mib << 20)
        _run("mkfs.ext4", "-q", "-m", "0", image)
        at.mkdir(parents=True, exist_ok=True)
        _run("mount", "-o", "loop", image, at)
        (at / "lost+found").rmdir()
        os.chown(at, *owner)

    def fill(self) -> None:
        """Take every block that is left."""
        with (self.at / _FILLER).open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\xff" * 65536)

    def free(self) -> None:
        (self.at / _FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        self.free()
        subprocess.run(["umount", "-l", self.at], check=False, capture_output=True)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
