"""Open a LUKS1 header in memory: the master key, the slot that opened, and clear bytes of the payload's sectors."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS

from agent.luks.errors import WrongSecret
from agent.luks.luks1 import SECTOR, Header, KeySlot
from agent.luks.window import Window


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened container: master key (never shown), the index and PBKDF2 iterations of the slot that opened."""

    slot: int
    iterations: int
    mode: str
    master_key: bytes = field(repr=False)

    def decrypt(self, data: bytes, first_sector: int) -> bytes:
        """Clear bytes of whole 512-byte sectors; `first_sector` is the sector number the IV is made of."""
        return b"".join(
            xts(self.master_key, data[at : at + SECTOR], first_sector + at // SECTOR, self.mode)
            for at in range(0, len(data), SECTOR)
        )


def xts(key: bytes, data: bytes, sector: int, mode: str, *, encrypt: bool = False) -> bytes:
    """One sector through AES-XTS with IV plain (32 bits of the number) or plain64."""
    number = sector & 0xFFFFFFFF if mode == "xts-plain" else sector
    cipher = Cipher(AES(key), XTS(number.to_bytes(16, "little")))
    context = cipher.encryptor() if encrypt else cipher.decryptor()
    return context.update(data)


def unlock(window: Window, header: Header, key: bytes, what: str = "the image") -> Opened:
    """Try the passphrase `key` on every active slot; raises WrongSecret. Takes seconds: call it in a thread."""
    for slot in header.slots:
        master = _try_slot(window, header, slot, key)
        if master is not None:
            return Opened(slot.index, slot.iterations, header.mode, master)
    raise WrongSecret(what=what)


def _try_slot(window: Window, header: Header, slot: KeySlot, key: bytes) -> bytes | None:
    size, name = header.details.key_bytes, header.details.hash
    derived = hashlib.pbkdf2_hmac(name, key, slot.salt, slot.iterations, size)
    length = slot.stripes * size
    padded = -(-length // SECTOR) * SECTOR
    material = window.read(slot.material, padded).ljust(padded, b"\0")
    clear = b"".join(
        xts(derived, material[at : at + SECTOR], at // SECTOR, header.mode) for at in range(0, padded, SECTOR)
    )
    master = merge(clear[:length], size, slot.stripes, name)
    digest = hashlib.pbkdf2_hmac(name, master, header.digest_salt, header.digest_iterations, len(header.digest))
    return master if hmac.compare_digest(digest, header.digest) else None


def merge(material: bytes, size: int, stripes: int, name: str) -> bytes:
    """Undo the anti-forensic split: `stripes` blocks of `size` bytes become one of `size` bytes."""
    block = bytes(size)
    for index in range(stripes - 1):
        block = _diffuse(_xor(block, material[index * size : (index + 1) * size]), name)
    return _xor(block, material[(stripes - 1) * size : stripes * size])


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "little") ^ int.from_bytes(right, "little")).to_bytes(len(left), "little")


def _diffuse(block: bytes, name: str) -> bytes:
    width = hashlib.new(name).digest_size
    parts = [
        hashlib.new(name, number.to_bytes(4, "big") + block[at : at + width]).digest()[: len(block) - at]
        for number, at in enumerate(range(0, len(block), width))
    ]
    return b"".join(parts)
