"""qcow2 images laid by hand, every field at will."""

from __future__ import annotations

import struct
from typing import Any

MiB = 1 << 20


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


def qcow2_bytes(extensions: bytes = b"", first: bytes = b"", entry: int | None = None, **changes: Any) -> bytes:
    """A qcow2 of four 64 KiB clusters: header, L1, L2, first data cluster holding `first`."""
    f: dict[str, Any] = {
        "magic": b"QFI\xfb", "version": 3, "backing": 0, "backing_len": 0, "bits": 16, "size": 64 * MiB, "crypt": 0,
        "l1_entries": 1, "l1": 65536, "snapshots": 0, "features": 0, "autoclear": 0, "refcount_order": 4,
        "header_length": 104,
    } | changes  # fmt: skip
    head = struct.pack(
        ">4sIQIIQIIQQIIQ", f["magic"], f["version"], f["backing"], f["backing_len"], f["bits"], f["size"], f["crypt"],
        f["l1_entries"], f["l1"], 0, 0, f["snapshots"], 0,
    )  # fmt: skip
    if f["version"] == 3:
        head += struct.pack(">QQQII", f["features"], 0, f["autoclear"], f["refcount_order"], f["header_length"])
        head = head.ljust(f["header_length"] & 0xFFF, b"\0")
    if entry is None:
        entry = 3 * 65536 if first else 0
    tables = struct.pack(">Q", 2 * 65536).ljust(65536, b"\0") + struct.pack(">Q", entry).ljust(65536, b"\0")
    return (head + extensions).ljust(65536, b"\0") + tables + first.ljust(65536, b"\0")
