"""A SCSI disk in memory, made by the kernel's own scsi_debug as a test orders it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.support.initiator import sh, until

_BUS = Path("/sys/bus/pseudo/drivers/scsi_debug")


@contextmanager
def disk(mib: int, options: str = "") -> Iterator[Path]:
    """The device of a new disk; `options` are those of the kernel's module (`sector_size=4096`)."""
    sh(f"modprobe -a sd_mod && modprobe scsi_debug dev_size_mb={mib} {options}")
    try:
        until(lambda: bool(_named()), what="scsi_debug shows no disk")
        sh("udevadm settle")
        yield Path("/dev", _named()[0])
    finally:
        sh("udevadm settle; modprobe -r scsi_debug")


def _named() -> list[str]:
    return sorted(place.name for place in _BUS.glob("adapter0/host*/target*/*/block/sd*"))
