"""The LUKS1 header: 592 bytes, eight key slots, then the key material, then the payload."""

from __future__ import annotations

import struct

from agent.luks import hashes
from agent.luks.details import Details, Digest, Header, Kdf, KeySlot, Slot
from agent.luks.errors import (
    CipherRefused,
    DataSegment,
    DetachedHeader,
    KdfLimit,
    KeyArea,
)
from agent.luks.model import DEFAULT_LIMITS, KdfLimits
from agent.luks.sectors import SECTOR, check
from agent.luks.window import Window

HEADER_BYTES = 592
HEAD = struct.Struct(">6sH32s32s32sII20s32sI40s")
SLOT = struct.Struct(">II32sII")
ACTIVE = 0x00AC71F3
UNUSED = 0x0000DEAD
MAX_STRIPES = 4000
SLOTS = 8


def parse(window: Window, limits: KdfLimits = DEFAULT_LIMITS, *, data_elsewhere: bool = False) -> Header:
    """Read and check a LUKS1 header at the start of `window` (see `header.parse`)."""
    raw = window.exact(0, HEADER_BYTES)
    _, _, name, mode, hash_name, payload, key_bytes, digest, salt, digest_iterations, uuid = HEAD.unpack_from(raw)
    cipher, hash_text = f"{_text(name)}-{_text(mode)}", _text(hash_name)
    check(cipher, key_bytes)
    hashes.check(hash_text)
    payload_offset = payload * SECTOR
    if payload_offset == 0 and not data_elsewhere:
        raise DetachedHeader
    slots = _slots(raw, cipher, hash_text, key_bytes)
    _check_costs(slots, digest_iterations, limits)
    _check_areas(slots, key_bytes, payload_offset or window.length, window.length)
    if not data_elsewhere and payload_offset >= window.length:
        raise DataSegment
    details = Details(
        version=1,
        cipher=cipher,
        key_bytes=key_bytes,
        hash=hash_text,
        payload_offset=payload_offset,
        payload_bytes=0 if data_elsewhere else (window.length - payload_offset) // SECTOR * SECTOR,
        sector_size=SECTOR,
        slots=tuple(Slot(slot.index, "pbkdf2", slot.kdf.iterations) for slot in slots),
    )
    made = Digest(Kdf("pbkdf2", salt, digest_iterations, hash_text), digest)
    return Header(details, slots, made, uuid.rstrip(b"\0").decode("ascii", "replace"))


def place(window: Window, index: int) -> int:
    """Where the material of a slot, used or not, begins; raises KeyArea when its header has no place for it."""
    raw = window.exact(0, HEADER_BYTES)
    _, _, _, material, stripes = SLOT.unpack_from(raw, HEAD.size + index * SLOT.size)
    payload, key_bytes = HEAD.unpack_from(raw)[5:7]
    start = material * SECTOR
    if stripes != MAX_STRIPES or start < HEADER_BYTES or start + stripes * key_bytes > payload * SECTOR:
        raise KeyArea
    return int(start)


def _text(field: bytes) -> str:
    text, _, rest = field.partition(b"\0")
    if rest.strip(b"\0") or not text.isascii():
        raise CipherRefused
    return text.decode()


def _slots(raw: bytes, cipher: str, name: str, key_bytes: int) -> tuple[KeySlot, ...]:
    found: list[KeySlot] = []
    for index in range(SLOTS):
        active, iterations, salt, material, stripes = SLOT.unpack_from(raw, HEAD.size + index * SLOT.size)
        if active == ACTIVE:
            kdf = Kdf("pbkdf2", salt, iterations, name)
            found.append(KeySlot(index, kdf, material * SECTOR, stripes, key_bytes, name, cipher, key_bytes))
        elif active != UNUSED:
            raise KeyArea
    if not found:
        raise KeyArea
    return tuple(found)


def _check_costs(slots: tuple[KeySlot, ...], digest_iterations: int, limits: KdfLimits) -> None:
    costs = [slot.kdf.iterations for slot in slots]
    if min(costs) < 1 or digest_iterations < 1:
        raise KeyArea
    if max(*costs, digest_iterations) > limits.slot_iterations:
        raise KdfLimit
    if sum(costs) + digest_iterations * len(slots) > limits.total_iterations:
        raise KdfLimit


def _check_areas(slots: tuple[KeySlot, ...], key_bytes: int, payload_offset: int, length: int) -> None:
    for slot in slots:
        end = slot.material + slot.stripes * key_bytes
        if not 1 <= slot.stripes <= MAX_STRIPES or slot.material < HEADER_BYTES or end > min(payload_offset, length):
            raise KeyArea
