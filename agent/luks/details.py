"""What a LUKS header says, in one form for both versions."""

from __future__ import annotations

from dataclasses import dataclass


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
