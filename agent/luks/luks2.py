"""The LUKS2 header: a binary block and a JSON area, each twice, then the key slots, then the payload."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.luks import hashes
from agent.luks.details import Details, Digest, Header, Kdf, KeySlot, Slot
from agent.luks.errors import (
    DataSegment,
    DetachedHeader,
    Integrity,
    KdfLimit,
    KeyArea,
    MetadataSize,
    Requirements,
    Tokens,
)
from agent.luks.luks1 import MAX_STRIPES
from agent.luks.model import DEFAULT_LIMITS, KdfLimits
from agent.luks.sectors import SECTOR_SIZES, check
from agent.luks.window import Window

BINARY_BYTES = 4096
HEAD = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
CHECKSUM_AT = 448
SIZES = frozenset(16384 << shift for shift in range(9))
MAX_SLOTS = 32
_MAX_SALT = 256
# A wrong key is tried on every slot, one after the other on a host: so many of the dearest ones may a header have.
_ARGON_SLOTS = 3


@dataclass(frozen=True, slots=True)
class Metadata:
    """One of the two copies: bytes of each copy, its generation, the container's name, and the tree of the JSON."""

    size: int
    generation: int
    uuid: str
    tree: Mapping[str, Any]


def parse(window: Window, limits: KdfLimits = DEFAULT_LIMITS) -> Header:
    """Read and check the first LUKS2 header of `window`; raises a HeaderRefused subclass."""
    return checked(metadata(window, limits), window.length, limits)


def checked(found: Metadata, file_bytes: int, limits: KdfLimits = DEFAULT_LIMITS) -> Header:
    """What the tree says, if it breaks no rule; raises a HeaderRefused subclass."""
    tree = found.tree
    if _mapping(tree, "tokens"):
        raise Tokens
    config = _mapping(tree, "config")
    if config.get("requirements"):
        raise Requirements
    end = area_end(found)
    segment, cipher, offset, length, sector = _segment(_mapping(tree, "segments"), end, file_bytes)
    every = _slots(_mapping(tree, "keyslots"), 2 * found.size, end, limits)
    digest, members = _digest(_mapping(tree, "digests"), segment, limits)
    slots = tuple(slot for slot in every if slot.index in members)
    if not slots or len({slot.key_bytes for slot in slots}) != 1:
        raise KeyArea
    _check_costs(slots, digest, limits)
    check(cipher, slots[0].key_bytes)
    told = tuple(Slot(slot.index, slot.kdf.kind, slot.kdf.iterations, slot.kdf.memory) for slot in slots)
    details = Details(2, cipher, slots[0].key_bytes, slots[0].hash, offset, length, sector, told)
    return Header(details, slots, digest, found.uuid)


@dataclass(frozen=True, slots=True)
class Area:
    """A slot's number, and where its material lies."""

    index: int
    start: int
    length: int


def slots_of(found: Metadata) -> list[Area]:
    """The areas of all slots, those of other keys included."""
    entries = _entries(_mapping(found.tree, "keyslots"))
    areas = [(index, _mapping(entry, "area")) for index, entry in entries]
    return [Area(index, _number(area, "offset"), _number(area, "size")) for index, area in areas]


def area_end(found: Metadata) -> int:
    """Where the place for key slots ends."""
    return 2 * found.size + _number(_mapping(found.tree, "config"), "keyslots_size")


def metadata(window: Window, limits: KdfLimits = DEFAULT_LIMITS, at: int = 0) -> Metadata:
    """The copy that begins at `at`, checked for damage alone; raises MetadataSize, Truncated."""
    raw = window.exact(at, BINARY_BYTES)
    fields = HEAD.unpack_from(raw)
    size, checksum_name, header_offset, checksum = fields[2], fields[5].rstrip(b"\0"), fields[9], fields[11]
    if size not in SIZES or size > limits.metadata_bytes or header_offset != at or checksum_name != b"sha256":
        raise MetadataSize
    area = window.exact(at + BINARY_BYTES, size - BINARY_BYTES)
    blanked = raw[:CHECKSUM_AT] + bytes(64) + raw[CHECKSUM_AT + 64 :]
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
    return Metadata(size, fields[3], fields[7].rstrip(b"\0").decode("ascii", "replace"), tree)


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


def _slots(tree: Mapping[str, Any], area_start: int, area_end: int, limits: KdfLimits) -> list[KeySlot]:
    slots: list[KeySlot] = []
    for index, entry in _entries(tree):
        if entry.get("type") != "luks2":
            raise Requirements
        kdf, area, split = _mapping(entry, "kdf"), _mapping(entry, "area"), _mapping(entry, "af")
        start, length = _number(area, "offset"), _number(area, "size")
        if area.get("type") != "raw" or start < area_start or length == 0 or start + length > area_end:
            raise KeyArea
        cipher, key_bytes, area_key = str(area.get("encryption")), _number(entry, "key_size"), _number(area, "key_size")
        check(cipher, area_key)
        stripes, name = _number(split, "stripes"), str(split.get("hash"))
        if not 16 <= key_bytes <= 64 or not 1 <= stripes <= MAX_STRIPES or stripes * key_bytes > length:
            raise KeyArea
        hashes.check(name)
        slots.append(KeySlot(index, _kdf(kdf, limits), start, stripes, key_bytes, name, cipher, area_key))
    if not 0 < len(slots) <= MAX_SLOTS:
        raise KeyArea
    return slots


def _kdf(tree: Mapping[str, Any], limits: KdfLimits) -> Kdf:
    kind, salt = tree.get("type"), _bytes(tree, "salt")
    if kind == "pbkdf2":
        name, iterations = str(tree.get("hash")), _number(tree, "iterations")
        hashes.check(name)
        if iterations > limits.slot_iterations:
            raise KdfLimit
        if iterations < 1:
            raise KeyArea
        return Kdf("pbkdf2", salt, iterations, name)
    if kind not in ("argon2i", "argon2id"):
        raise Requirements
    passes, memory, lanes = _number(tree, "time"), _number(tree, "memory") * 1024, _number(tree, "cpus")
    if passes > limits.argon_passes or memory > limits.memory_bytes or lanes > limits.threads:
        raise KdfLimit
    if passes < 1 or lanes < 1 or memory < 8192 * lanes or len(salt) < 8:
        raise KeyArea
    return Kdf(str(kind), salt, passes, memory=memory, lanes=lanes)


def _bytes(tree: Mapping[str, Any], key: str) -> bytes:
    value = tree.get(key)
    if not isinstance(value, str) or len(value) > 2 * _MAX_SALT:
        raise MetadataSize
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise MetadataSize from None


def _segment(tree: Mapping[str, Any], area_end: int, file_bytes: int) -> tuple[int, str, int, int, int]:
    """Number, cipher, offset, length and sector size of the one segment."""
    entries = _entries(tree)
    if len(entries) != 1:
        raise DataSegment
    index, segment = entries[0]
    kind = str(segment.get("type"))
    if kind.startswith("hw-opal") or segment.get("integrity"):
        raise Integrity
    if kind != "crypt" or segment.get("flags") or _number(segment, "iv_tweak"):
        raise DataSegment
    cipher = str(segment.get("encryption"))
    check(cipher)
    offset, sector = _number(segment, "offset"), _number(segment, "sector_size")
    if offset == 0:
        raise DetachedHeader
    if sector not in SECTOR_SIZES or offset % 512 or offset < area_end or offset >= file_bytes:
        raise DataSegment
    dynamic = segment.get("size") == "dynamic"
    length = (file_bytes - offset) // sector * sector if dynamic else _number(segment, "size")
    if length <= 0 or length % sector or offset + length > file_bytes:
        raise DataSegment
    return index, cipher, offset, length, sector


def _digest(tree: Mapping[str, Any], segment: int, limits: KdfLimits) -> tuple[Digest, frozenset[int]]:
    """The one digest of the segment's master key, and the slots that hold that key."""
    found: list[tuple[Digest, frozenset[int]]] = []
    for _, entry in _entries(tree):
        if entry.get("type") != "pbkdf2":
            raise Requirements
        hashes.check(str(entry.get("hash")))
        iterations, value = _number(entry, "iterations"), _bytes(entry, "digest")
        if iterations > limits.slot_iterations:
            raise KdfLimit
        if not 20 <= len(value) <= 64 or iterations < 1:
            raise MetadataSize
        if segment in _members(entry, "segments"):
            kdf = Kdf("pbkdf2", _bytes(entry, "salt"), iterations, str(entry["hash"]))
            found.append((Digest(kdf, value), _members(entry, "keyslots")))
    if len(found) != 1:
        raise MetadataSize
    return found[0]


def _members(tree: Mapping[str, Any], key: str) -> frozenset[int]:
    value = tree.get(key)
    if not isinstance(value, list) or len(value) > MAX_SLOTS:
        raise MetadataSize
    if not all(isinstance(name, str) and name.isascii() and name.isdigit() and len(name) <= 2 for name in value):
        raise MetadataSize
    return frozenset(int(name) for name in value)


def _check_costs(slots: tuple[KeySlot, ...], digest: Digest, limits: KdfLimits) -> None:
    spent = sum(slot.kdf.iterations for slot in slots if slot.kdf.kind == "pbkdf2")
    if spent + digest.kdf.iterations * len(slots) > limits.total_iterations:
        raise KdfLimit
    filled = sum(slot.kdf.iterations * slot.kdf.memory for slot in slots if slot.kdf.kind != "pbkdf2")
    if filled > _ARGON_SLOTS * limits.argon_passes * limits.memory_bytes:
        raise KdfLimit
