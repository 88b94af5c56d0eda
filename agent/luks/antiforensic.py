"""The anti-forensic split: a key is spread over many blocks, so that losing any of them loses the key."""

from __future__ import annotations

import os

from agent.luks import hashes


def split(key: bytes, stripes: int, name: str) -> bytes:
    """`stripes` blocks of the key's size that `merge` makes the key of; `name` is a hash."""
    size = len(key)
    noise = os.urandom((stripes - 1) * size)
    return noise + _xor(_mixed(noise, size, name), key)


def merge(material: bytes, size: int, stripes: int, name: str) -> bytes:
    """The key of `size` bytes that `stripes` blocks hold."""
    last = (stripes - 1) * size
    return _xor(_mixed(material[:last], size, name), material[last : last + size])


def _mixed(material: bytes, size: int, name: str) -> bytes:
    block = bytes(size)
    for at in range(0, len(material), size):
        block = _diffuse(_xor(block, material[at : at + size]), name)
    return block


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "little") ^ int.from_bytes(right, "little")).to_bytes(len(left), "little")


def _diffuse(block: bytes, name: str) -> bytes:
    width = hashes.new(name, b"").digest_size
    parts = [
        hashes.digest(name, number.to_bytes(4, "big") + block[at : at + width])[: len(block) - at]
        for number, at in enumerate(range(0, len(block), width))
    ]
    return b"".join(parts)
