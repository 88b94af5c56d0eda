"""Make what a key slot and a digest hold: salts, stretched passphrases, split and encrypted key material."""

from __future__ import annotations

import secrets
from dataclasses import replace

from agent.luks import antiforensic
from agent.luks.details import Digest, Kdf, KeySlot
from agent.luks.kdf import derive
from agent.luks.sectors import SECTOR, sectors

SALT_BYTES = 32
STRIPES = 4000
HASH = "sha256"
# A master key is random: nobody guesses it, so nothing is gained by making a guess costly.
DIGEST_ITERATIONS = 1000


def pbkdf2(iterations: int) -> Kdf:
    """A fresh salt, and that many iterations."""
    return Kdf("pbkdf2", secrets.token_bytes(SALT_BYTES), iterations, HASH)


def digest_of(master: bytes, length: int) -> Digest:
    """The digest of a new master key, `length` bytes long."""
    kdf = pbkdf2(DIGEST_ITERATIONS)
    return Digest(kdf, derive(kdf, master, length))


def new_slot(index: int, at: int, key_bytes: int, cipher: str, iterations: int) -> KeySlot:
    """A slot whose material is to lie at byte `at` of the header."""
    return KeySlot(index, pbkdf2(iterations), at, STRIPES, key_bytes, HASH, cipher, key_bytes)


def with_hash(slot: KeySlot, name: str) -> KeySlot:
    """The same slot stretched and split with another hash: LUKS1 has one for all."""
    return replace(slot, hash=name, kdf=replace(slot.kdf, hash=name))


def material_bytes(slot: KeySlot) -> int:
    """Whole sectors that the slot's material takes."""
    return -(-slot.stripes * slot.key_bytes // SECTOR) * SECTOR


def material(slot: KeySlot, master: bytes, key: bytes) -> bytes:
    """The encrypted material from which the passphrase `key` gets the master key. Blocking, may take seconds."""
    buffer = bytearray(antiforensic.split(master, slot.stripes, slot.hash).ljust(material_bytes(slot), b"\0"))
    derived = derive(slot.kdf, key, slot.area_key_bytes)
    sectors(slot.cipher, derived).encrypt(memoryview(buffer), 0)
    return bytes(buffer)
