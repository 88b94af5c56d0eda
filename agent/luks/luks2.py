"""The LUKS2 header: a binary block and a JSON area, each twice, then the key slots, then the payload."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

from agent.luks.details import Details, Slot
from agent.luks.errors import (
    CipherRefused,
    DataSegment,
    DetachedHeader,
    Integrity,
    KdfLimit,
    KeyArea,
    MetadataSize,
    NullCipher,
    Requirements,
    Tokens,
)
from agent.luks.model import DEFAULT_LIMITS, KdfLimits
from agent.luks.window import Window

BINARY_BYTES = 4096
_HEAD = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
_CHECKSUM_AT = 448
_SIZES = frozenset(16384 << shift for shift in range(9))
_PBKDF2_HASHES = ("sha1", "sha256", "sha512")


def parse(window: Window, limits: KdfLimits = DEFAULT_LIMITS) -> Details:
    """Read and check the first LUKS2 header of `window`; raises a HeaderRefused subclass."""
    size, tree = _metadata(window, limits)
    if _mapping(tree, "tokens"):
        raise Tokens
    config = _mapping(tree, "config")
    if config.get("requirements"):
        raise Requirements
    area_end = 2 * size + _number(config, "keyslots_size")
    slots, key_bytes, hash_name = _slots(_mapping(tree, "keyslots"), 2 * size, area_end, limits)
    cipher, offset, length, sector = _segment(_mapping(tree, "segments"), area_end, window.length)
    _check_digests(_mapping(tree, "digests"), limits)
    return Details(2, cipher, key_bytes, hash_name, offset, length, sector, slots)


def _metadata(window: Window, limits: KdfLimits) -> tuple[int, Mapping[str, Any]]:
    raw = window.exact(0, BINARY_BYTES)
    fields = _HEAD.unpack_from(raw)
    size, checksum_name, header_offset, checksum = fields[2], fields[5].rstrip(b"\0"), fields[9], fields[11]
    if size not in _SIZES or size > limits.metadata_bytes or header_offset != 0 or checksum_name != b"sha256":
        raise MetadataSize
    area = window.exact(BINARY_BYTES, size - BINARY_BYTES)
    blanked = raw[:_CHECKSUM_AT] + bytes(64) + raw[_CHECKSUM_AT + 64 :]
    if hashlib.sha256(blanked + area).digest() != checksum[:32]:
        raise MetadataSize
    text, _, _ = area.partition(b"\0")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise MetadataSize from None
    if not isinstance(tree, dict):
        raise MetadataSize
    if _number(_mapping(tree, "config"), "json_size") != size - BINARY_BYTES:
        raise MetadataSize
    return size, tree


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key, {})
    if not isinstance(value, dict):
        raise MetadataSize
    return value


def _number(tree: Mapping[str, Any], key: str) -> int:
    value = tree.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise MetadataSize
    if isinstance(value, str) and (not value.isascii() or not value.isdigit() or len(value) > 20):
        raise MetadataSize
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise MetadataSize
    return number


def _entries(tree: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    found: list[tuple[int, Mapping[str, Any]]] = []
    for key, value in tree.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 2 and isinstance(value, dict)):
            raise MetadataSize
        found.append((int(key), value))
    return found


def _slots(
    tree: Mapping[str, Any], area_start: int, area_end: int, limits: KdfLimits
) -> tuple[tuple[Slot, ...], int, str]:
    slots: list[Slot] = []
    key_bytes, hash_name = 0, ""
    for index, entry in _entries(tree):
        if entry.get("type") != "luks2":
            raise Requirements
        kdf, area, split = _mapping(entry, "kdf"), _mapping(entry, "area"), _mapping(entry, "af")
        slots.append(_slot(index, kdf, limits))
        start, length = _number(area, "offset"), _number(area, "size")
        if area.get("type") != "raw" or start < area_start or length == 0 or start + length > area_end:
            raise KeyArea
        _check_cipher(str(area.get("encryption")))
        key_bytes, hash_name = _number(entry, "key_size"), str(split.get("hash"))
        stripes = _number(split, "stripes")
        if key_bytes not in (16, 32, 64) or not 1 <= stripes <= 4000 or stripes * key_bytes > length:
            raise KeyArea
    if not slots:
        raise KeyArea
    if sum(slot.iterations for slot in slots if slot.kdf == "pbkdf2") > limits.total_iterations:
        raise KdfLimit
    return tuple(slots), key_bytes, hash_name


def _slot(index: int, kdf: Mapping[str, Any], limits: KdfLimits) -> Slot:
    if kdf.get("type") == "pbkdf2":
        slot = Slot(index, "pbkdf2", _number(kdf, "iterations"))
        if str(kdf.get("hash")) not in _PBKDF2_HASHES:
            raise CipherRefused
        if slot.iterations > limits.slot_iterations:
            raise KdfLimit
        return slot
    if kdf.get("type") not in ("argon2i", "argon2id"):
        raise Requirements
    slot = Slot(index, str(kdf["type"]), _number(kdf, "time"), _number(kdf, "memory") * 1024)
    over = slot.iterations > limits.argon_passes or slot.memory > limits.memory_bytes
    if over or _number(kdf, "cpus") > limits.threads:
        raise KdfLimit
    return slot


def _segment(tree: Mapping[str, Any], area_end: int, file_bytes: int) -> tuple[str, int, int, int]:
    entries = _entries(tree)
    if len(entries) != 1:
        raise DataSegment
    segment = entries[0][1]
    kind = str(segment.get("type"))
    if kind.startswith("hw-opal") or segment.get("integrity"):
        raise Integrity
    if kind != "crypt" or segment.get("flags") or _number(segment, "iv_tweak"):
        raise DataSegment
    cipher = str(segment.get("encryption"))
    _check_cipher(cipher)
    offset, sector = _number(segment, "offset"), _number(segment, "sector_size")
    if offset == 0:
        raise DetachedHeader
    if sector not in (512, 1024, 2048, 4096) or offset < area_end or offset >= file_bytes:
        raise DataSegment
    dynamic = segment.get("size") == "dynamic"
    length = (file_bytes - offset) // sector * sector if dynamic else _number(segment, "size")
    if length <= 0 or length % sector or offset + length > file_bytes:
        raise DataSegment
    return cipher, offset, length, sector


def _check_cipher(cipher: str) -> None:
    if "null" in cipher:
        raise NullCipher
    if cipher not in ("aes-xts-plain64", "aes-xts-plain"):
        raise CipherRefused


def _check_digests(tree: Mapping[str, Any], limits: KdfLimits) -> None:
    for _, digest in _entries(tree):
        if digest.get("type") != "pbkdf2" or str(digest.get("hash")) not in _PBKDF2_HASHES:
            raise Requirements
        if _number(digest, "iterations") > limits.slot_iterations:
            raise KdfLimit
