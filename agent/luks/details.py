"""What a LUKS header says, in one form for both versions."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Slot:
    """One active key slot. `iterations` are PBKDF2 iterations or Argon2 passes; `memory` in bytes (PBKDF2: 0)."""

    index: int
    kdf: str
    iterations: int
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Details:
    """Checked facts of a header; sizes in bytes. `payload_bytes` is what the container holds in clear."""

    version: int
    cipher: str
    key_bytes: int
    hash: str
    payload_offset: int
    payload_bytes: int
    sector_size: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Kdf:
    """How a passphrase is stretched: `kind` pbkdf2 (with `hash`), argon2i or argon2id; `memory` in bytes."""

    kind: str
    salt: bytes = field(repr=False)
    iterations: int
    hash: str = ""
    memory: int = 0
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class KeySlot:
    """An active slot: `material` is where its key material begins, in bytes from the start of the header.

    The material is `stripes` blocks of `key_bytes` (the master key's size) split with `hash`, encrypted by `cipher`
    under a key of `area_key_bytes` that the passphrase gives.
    """

    index: int
    kdf: Kdf
    material: int
    stripes: int
    key_bytes: int
    hash: str
    cipher: str
    area_key_bytes: int


@dataclass(frozen=True, slots=True)
class Digest:
    """What tells whether a master key is the right one."""

    kdf: Kdf
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Header:
    """Everything that is needed to open a container, and its own name (`uuid`)."""

    details: Details
    slots: tuple[KeySlot, ...]
    digest: Digest
    uuid: str
