"""Whether this host can show what lies elsewhere as a file."""

from __future__ import annotations

from pathlib import Path


def shows_ceph(root: Path = Path("/")) -> bool:
    """Whether FUSE is there, and QEMU's part that opens images of a Ceph cluster."""
    return (root / "dev" / "fuse").exists() and any((root / "usr" / "lib").glob("*/qemu/block-rbd.so"))
