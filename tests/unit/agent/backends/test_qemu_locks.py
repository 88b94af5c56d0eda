"""QEMU's locks on image files; how a running QEMU holds them is seen in test_nova_told."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from agent.backends.qemu_locks import may_resize


def test_only_the_byte_of_resizing_counts(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(b"")
    ours, theirs = os.open(file, os.O_RDWR), os.open(file, os.O_RDWR)
    try:
        assert may_resize(ours)
        for byte, free in ((103, True), (201, True), (203, False)):
            lock = struct.pack("hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
            fcntl.fcntl(theirs, fcntl.F_OFD_SETLK, lock)
            assert may_resize(ours) is free, byte
    finally:
        os.close(theirs)
    assert may_resize(ours)
    os.close(ours)
