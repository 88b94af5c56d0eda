"""The LUKS1 header: 592 bytes, eight key slots, then the key material, then the payload."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from agent.luks.details import Details, Slot
from agent.luks.errors import (
    CipherRefused,
    DataSegment,
    DetachedHeader,
    KdfLimit,
    KeyArea,
    NullCipher,
)
from agent.luks.model import DEFAULT_LIMITS, KdfLimits
from agent.luks.window import Window

SECTOR = 512
HEADER_BYTES = 592
_HEAD = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")
_ACTIVE = 0x00AC71F3
_UNUSED = 0x0000DEAD
MAX_STRIPES = 4000
HASHES = ("sha1", "sha256", "sha512")
MODES = ("xts-plain64", "xts-plain")
XTS_KEY_BYTES = (32, 64)


@dataclass(frozen=True, slots=True)
class KeySlot:
    """An active slot; `material` is the byte offset of the key material from the start of the header."""

    index: int
    iterations: int
    salt: bytes
    material: int
    stripes: int


@dataclass(frozen=True, slots=True)
class Header:
    """Everything that is needed to open the container."""

    details: Details
    mode: str
    digest: bytes
    digest_salt: bytes
    digest_iterations: int
    slots: tuple[KeySlot, ...]


def parse(window: Window, limits: KdfLimits = DEFAULT_LIMITS, *, data_elsewhere: bool = False) -> Header:
    """Read and check a LUKS1 header at the start of `window` (see `header.parse`)."""
    raw = window.exact(0, HEADER_BYTES)
    _, _, name, mode, hash_name, payload, key_bytes, digest, salt, digest_iterations, _ = _HEAD.unpack_from(raw)
    cipher, mode_text, hash_text = _text(name), _text(mode), _text(hash_name)
    _check_cipher(cipher, mode_text, hash_text, key_bytes)
    payload_offset = payload * SECTOR
    if payload_offset == 0 and not data_elsewhere:
        raise DetachedHeader
    slots = _slots(raw, key_bytes)
    _check_costs(slots, digest_iterations, limits)
    _check_areas(slots, key_bytes, payload_offset or window.length, window.length)
    if not data_elsewhere and payload_offset >= window.length:
        raise DataSegment
    details = Details(
        version=1,
        cipher=f"{cipher}-{mode_text}",
        key_bytes=key_bytes,
        hash=hash_text,
        payload_offset=payload_offset,
        payload_bytes=0 if data_elsewhere else (window.length - payload_offset) // SECTOR * SECTOR,
        sector_size=SECTOR,
        slots=tuple(Slot(slot.index, "pbkdf2", slot.iterations) for slot in slots),
    )
    return Header(details, mode_text, digest, salt, digest_iterations, slots)


def _text(field: bytes) -> str:
    text, _, rest = field.partition(b"\0")
    if rest.strip(b"\0") or not text.isascii():
        raise CipherRefused
    return text.decode()


def _check_cipher(cipher: str, mode: str, hash_name: str, key_bytes: int) -> None:
    if "null" in cipher or "null" in mode:
        raise NullCipher
    if cipher != "aes" or mode not in MODES or hash_name not in HASHES or key_bytes not in XTS_KEY_BYTES:
        raise CipherRefused


def _slots(raw: bytes, key_bytes: int) -> tuple[KeySlot, ...]:
    found: list[KeySlot] = []
    for index in range(8):
        active, iterations, salt, material, stripes = _SLOT.unpack_from(raw, _HEAD.size + index * _SLOT.size)
        if active == _ACTIVE:
            found.append(KeySlot(index, iterations, salt, material * SECTOR, stripes))
        elif active != _UNUSED:
            raise KeyArea
    if not found:
        raise KeyArea
    return tuple(found)


def _check_costs(slots: tuple[KeySlot, ...], digest_iterations: int, limits: KdfLimits) -> None:
    costs = [slot.iterations for slot in slots]
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
