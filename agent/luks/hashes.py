"""The hashes that LUKS headers name, by the names that they have there."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

from agent.luks.errors import CipherRefused

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_NAMES = {
    **{name: name for name in ("sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "md5", "sm3", "whirlpool")},
    **{f"sha3-{bits}": f"sha3_{bits}" for bits in (224, 256, 384, 512)},
    "blake2b-512": "blake2b",
    "blake2s-256": "blake2s",
}


@cache
def check(name: str) -> None:
    """Raises CipherRefused for a hash that is unknown, or that the library here lacks."""
    try:
        hashlib.pbkdf2_hmac(_NAMES[name], b"", b"", 1)
    except (KeyError, ValueError):
        raise CipherRefused from None


def new(name: str, data: bytes) -> Hash:
    return hashlib.new(_NAMES[name], data, usedforsecurity=False)


def digest(name: str, data: bytes) -> bytes:
    return new(name, data).digest()


def stretched(name: str, key: bytes, salt: bytes, iterations: int, size: int) -> bytes:
    """PBKDF2 with HMAC; blocking, takes seconds."""
    return hashlib.pbkdf2_hmac(_NAMES[name], key, salt, iterations, size)
