"""Open a LUKS header in memory: the master key, the slot that opened, and the cipher of its payload."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from agent.luks import antiforensic
from agent.luks.details import Header, KeySlot
from agent.luks.errors import WrongSecret
from agent.luks.kdf import derive
from agent.luks.sectors import SECTOR, Sectors, sectors
from agent.luks.window import Window


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened container: its header, master key (never shown), and the slot that opened."""

    header: Header
    slot: KeySlot
    master_key: bytes = field(repr=False)

    @property
    def iterations(self) -> int | None:
        """PBKDF2 iterations of the slot; None when it is stretched otherwise."""
        return self.slot.kdf.iterations if self.slot.kdf.kind == "pbkdf2" else None

    def cipher(self) -> Sectors:
        """The cipher of the payload."""
        details = self.header.details
        return sectors(details.cipher, self.master_key, details.sector_size)

    def decrypt(self, data: bytes, first_sector: int) -> bytes:
        """Clear bytes of whole sectors; `first_sector` is the sector number the IV is made of."""
        buffer = bytearray(data)
        self.cipher().decrypt(memoryview(buffer), first_sector)
        return bytes(buffer)


def unlock(window: Window, header: Header, key: bytes, what: str = "the image") -> Opened:
    """Try the passphrase `key` on every active slot; raises WrongSecret. Takes seconds: call it in a thread."""
    for slot in header.slots:
        master = _try_slot(window, header, slot, key)
        if master is not None:
            return Opened(header, slot, master)
    raise WrongSecret(what=what)


def _try_slot(window: Window, header: Header, slot: KeySlot, key: bytes) -> bytes | None:
    length = slot.stripes * slot.key_bytes
    padded = -(-length // SECTOR) * SECTOR
    material = bytearray(window.read(slot.material, padded).ljust(padded, b"\0"))
    derived = derive(slot.kdf, key, slot.area_key_bytes)
    sectors(slot.cipher, derived).decrypt(memoryview(material), 0)
    master = antiforensic.merge(bytes(material[:length]), slot.key_bytes, slot.stripes, slot.hash)
    return master if is_master(header, master) else None


def is_master(header: Header, key: bytes) -> bool:
    """Whether `key` is the master key that the header's digest was made of."""
    made = derive(header.digest.kdf, key, len(header.digest.value))
    return hmac.compare_digest(made, header.digest.value)
