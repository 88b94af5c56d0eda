"""From a passphrase to the key of a slot. What a header may ask for was limited when it was parsed."""

from __future__ import annotations

import threading

from agent.luks import hashes
from agent.luks.details import Kdf
from agent.luks.errors import CipherRefused
from agent.luks.native import native

# Argon2 takes up to the memory limit: one at a time, so that the limit is the host's and not each header's.
_ARGON = threading.Lock()


def derive(kdf: Kdf, key: bytes, size: int) -> bytes:
    """`size` bytes from the passphrase `key`. Blocking, takes seconds; raises CipherRefused without Argon2 here."""
    if kdf.kind == "pbkdf2":
        library = native()
        if library is not None and library.serves_pbkdf2(kdf.hash, size):
            return library.pbkdf2(key, kdf.salt, kdf.iterations, size)
        return hashes.stretched(kdf.hash, key, kdf.salt, kdf.iterations, size)
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        from cryptography.hazmat.primitives.kdf import argon2
    except ImportError:  # a library from before 44
        raise CipherRefused from None
    kind = argon2.Argon2id if kdf.kind == "argon2id" else argon2.Argon2i
    with _ARGON:
        try:
            made = kind(
                salt=kdf.salt, length=size, iterations=kdf.iterations, lanes=kdf.lanes, memory_cost=kdf.memory // 1024
            )
        except UnsupportedAlgorithm:
            raise CipherRefused from None
        return made.derive(key)
