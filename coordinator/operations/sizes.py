"""Which size is meant: GiB for users and quota, `usable` bytes inside, `device` bytes on the back end."""

from __future__ import annotations

GIB = 1 << 30
_HEADER = {"luks1": 2 << 20, "luks2": 16 << 20}


def usable_bytes(size_gib: int) -> int:
    """What a volume of `size_gib` gives to its user."""
    return size_gib * GIB


def claimed_bytes(size_gib: int, encryption_format: str | None) -> int:
    """What placing it promises of a pool; the exact figure is the one that the host reports."""
    return usable_bytes(size_gib) + _HEADER.get(encryption_format or "", 0)


def gib_for(size_bytes: int) -> int:
    """The smallest whole number of GiB that holds `size_bytes`, at least 1."""
    return max(1, -(-size_bytes // GIB))
