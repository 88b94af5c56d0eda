"""Who has a device open, or mounted, while it is taken away by force."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.support.initiator import sh


@contextmanager
def opened(device: Path) -> Iterator[Path]:
    """By a process, for writing; at the end a write fails."""
    held = os.open(device, os.O_RDWR)
    try:
        os.pwrite(held, b"kept" * 1024, 0)
        os.fsync(held)
        yield device
        try:
            os.pwrite(held, b"lost" * 1024, 0)
            os.fsync(held)
        except OSError:
            return
        raise AssertionError(f"{device} can still be written to")
    finally:
        os.close(held)


@contextmanager
def mounted(device: Path, place: Path) -> Iterator[Path]:
    """As a file system; at the end a write fails."""
    place.mkdir(exist_ok=True)
    sh(f"mkfs.ext4 -q {device} && mount {device} {place}")
    try:
        (place / "kept").write_bytes(b"kept" * 1024)
        sh(f"sync -f {place}")
        yield place
        written = ["dd", "if=/dev/zero", f"of={place}/lost", "bs=4096", "count=8", "conv=fsync"]
        assert subprocess.run(written, capture_output=True, check=False).returncode, f"{place} can still be written to"
    finally:
        sh(f"umount {place}")
