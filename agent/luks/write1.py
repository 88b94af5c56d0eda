"""Write LUKS1 headers, as cryptsetup and qemu lay them out: key material in eight areas of whole 4 KiB."""

from __future__ import annotations

import os

from agent.luks.details import Digest, KeySlot
from agent.luks.header import MAGIC
from agent.luks.keyslot import STRIPES
from agent.luks.luks1 import ACTIVE, HEAD, SLOT, SLOTS, UNUSED
from agent.luks.sectors import SECTOR
from agent.luks.stored import Put, put

_ALIGN = 4096
DIGEST_BYTES = 20
_STATE_BYTES = 4


def place(key_bytes: int, stripes: int, index: int) -> int:
    """Where the material of a slot begins."""
    return _ALIGN + index * (-(-key_bytes * stripes // _ALIGN) * _ALIGN)


def head(cipher: str, digest: Digest, uuid: str, *, payload: int, key_bytes: int) -> bytes:
    """The 592 bytes of a header whose slots are all unused; one hash for the digest and the slots."""
    name, _, mode = cipher.partition("-")
    made = HEAD.pack(
        MAGIC, 1, name.encode(), mode.encode(), digest.kdf.hash.encode(), payload // SECTOR, key_bytes, digest.value,
        digest.kdf.salt, digest.kdf.iterations, uuid.encode(),
    )  # fmt: skip
    return made + b"".join(_unused(place(key_bytes, STRIPES, index), STRIPES) for index in range(SLOTS))


def entry(slot: KeySlot) -> bytes:
    """The 48 bytes of an active slot."""
    return SLOT.pack(ACTIVE, slot.kdf.iterations, slot.kdf.salt, slot.material // SECTOR, slot.stripes)


def _unused(at: int, stripes: int) -> bytes:
    return SLOT.pack(UNUSED, 0, bytes(32), at // SECTOR, stripes)


def entry_place(index: int) -> int:
    return HEAD.size + index * SLOT.size


def store_slot(fd: int, slot: KeySlot, material: bytes) -> None:
    """Add a slot to a header in use; a kill or a power cut leaves it as it was or with the slot whole. Blocking."""
    made, at = entry(slot), entry_place(slot.index)
    put(fd, Put(slot.material, material))
    put(fd, Put(at + _STATE_BYTES, made[_STATE_BYTES:]))
    put(fd, Put(at, made[:_STATE_BYTES]))


def drop_slot(fd: int, slot: KeySlot, length: int) -> None:
    """Destroy a slot: its material first, so that no moment leaves a key that still opens. Blocking."""
    put(fd, Put(slot.material, os.urandom(length)))
    put(fd, Put(entry_place(slot.index), _unused(slot.material, slot.stripes)))
