"""The key-encryption key: where it comes from, and how it seals.

The file (or systemd credential) holds one key a line, 32 random bytes in base64. The first seals; further ones are
former keys, and only open what a rotation has not reached yet.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from agent.base.config import read_secret
from agent.base.files import write_whole
from coordinator.keys.errors import KeyFileInvalid

CREDENTIAL = "key-encryption-key"
_SIZE = 32


@dataclass(frozen=True, slots=True)
class Kek:
    """One key-encryption key. `id` tells keys apart and gives nothing away."""

    value: bytes = field(repr=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        if len(self.value) != _SIZE:
            raise ValueError("a key-encryption key has 32 bytes")
        object.__setattr__(self, "id", self.proof(b"brickyard key-encryption key id").hex()[:32])

    @classmethod
    def generate(cls) -> Kek:
        return cls(secrets.token_bytes(_SIZE))

    def proof(self, nonce: bytes) -> bytes:
        """What only the holder of this key can compute from `nonce`: the check value."""
        return hmac.digest(self.value, nonce, "sha256")

    def seal(self, clear: bytes, bound_to: bytes) -> tuple[bytes, bytes]:
        """(nonce, sealed); opens only with the same `bound_to`."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(12)
        return nonce, AESGCM(self.value).encrypt(nonce, clear, bound_to)

    def open(self, nonce: bytes, sealed: bytes, bound_to: bytes) -> bytes | None:
        """The clear bytes; None when key, bytes or `bound_to` do not fit."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self.value).decrypt(nonce, sealed, bound_to)
        except InvalidTag:
            return None


def load(path: Path | None) -> tuple[Kek, ...]:
    """The keys of a file that its owner alone may read (None: the systemd credential). Raises naming the remedy."""
    text = read_secret(CREDENTIAL, path)
    where = str(path) if path is not None else f"the credential {CREDENTIAL}"
    found = []
    for number, line in enumerate(text.split(), start=1):
        try:
            found.append(Kek(base64.b64decode(line, validate=True)))
        except (binascii.Error, ValueError):
            raise KeyFileInvalid(path=where, problem=f"line {number} is not 32 bytes in base64") from None
    if not found:
        raise KeyFileInvalid(path=where, problem="it is empty")
    return tuple(found)


def store(path: Path, keys: tuple[Kek, ...]) -> None:
    """Write a key file whole, mode 0400."""
    write_whole(path, b"".join(base64.b64encode(kek.value) + b"\n" for kek in keys), 0o400)


def make(path: Path) -> tuple[Kek, ...]:
    """Load the file, or make it with a new key where there is none (the first start of a new site)."""
    if not path.exists():
        store(path, (Kek.generate(),))
    return load(path)
