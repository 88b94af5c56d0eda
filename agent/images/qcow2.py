"""The qcow2 header, read by rule: what is not known to be harmless is refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from agent.images import errors
from agent.luks.errors import Truncated
from agent.luks.window import Window

MAGIC = b"QFI\xfb"
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_V2_BYTES = 72
_V3_BYTES = 104
MAX_L1_BYTES = 32 << 20
MAX_EXTENSIONS = 64

DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2

_EXT_END = 0
_EXT_BACKING_FORMAT = 0xE2792ACA
_EXT_FEATURE_NAMES = 0x6803F857
_EXT_BITMAPS = 0x23852875
_EXT_LUKS = 0x0537BE77
_EXT_DATA_FILE = 0x44415441
CRYPT_NONE, CRYPT_AES, CRYPT_LUKS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Qcow2:
    """Checked facts of a header; sizes and offsets in bytes. `luks` is (offset, length) of the LUKS header."""

    version: int
    virtual_size: int
    cluster_bits: int
    l1_entries: int
    l1_offset: int
    extended_l2: bool
    zstd: bool
    luks: tuple[int, int] | None


def parse(window: Window) -> Qcow2:
    """Read and check the header of a qcow2 file (version 2 or 3); raises an ImageRefused subclass or Truncated."""
    raw = window.exact(0, _V2_BYTES)
    magic, version, backing, backing_len, bits, size, crypt, l1_entries, l1, _, _, snapshots, _ = _V2.unpack(raw)
    if magic != MAGIC:
        raise errors.Malformed(rule="the signature is missing")
    if version not in (2, 3):
        raise errors.UnsupportedVersion
    if not 9 <= bits <= 21:
        raise errors.Malformed(rule="the cluster size is outside of 512 bytes to 2 MiB")
    if backing or backing_len:
        raise errors.BackingFile
    features, header_length, compression = (0, _V2_BYTES, 0)
    if version == 3:
        features, header_length, compression = _version3(window, bits)
    if crypt == CRYPT_AES:
        raise errors.LegacyEncryption
    if crypt not in (CRYPT_NONE, CRYPT_LUKS):
        raise errors.UnknownFeature
    luks = _extensions(window, header_length, 1 << bits)
    if snapshots:
        raise errors.InternalSnapshots
    if (luks is not None) != (crypt == CRYPT_LUKS):
        raise errors.Malformed(rule="encryption method and encryption header do not agree")
    extended = bool(features & EXTENDED_L2)
    _check_table(window, bits, size, (l1, l1_entries), extended)
    return Qcow2(version, size, bits, l1_entries, l1, extended, compression == 1, luks)


def _version3(window: Window, bits: int) -> tuple[int, int, int]:
    raw = window.exact(_V2_BYTES, _V3.size)
    features, _, autoclear, refcount_order, header_length = _V3.unpack(raw)
    if features & EXTERNAL_DATA:
        raise errors.DataFile
    if features & ~_KNOWN:
        raise errors.UnknownFeature
    if features & CORRUPT:
        raise errors.Corrupt
    if autoclear & 2:
        raise errors.DataFile
    if refcount_order > 6:
        raise errors.Malformed(rule="the reference count width is above 64 bits")
    if header_length < _V3_BYTES or header_length > 1 << bits or header_length % 8:
        raise errors.Malformed(rule="the header length is impossible")
    compression = 0
    if header_length > _V3_BYTES:
        compression = window.exact(_V3_BYTES, 1)[0]
    if compression > 1 or bool(compression) != bool(features & COMPRESSION_TYPE):
        raise errors.Compression
    if features & EXTENDED_L2 and bits < 14:
        raise errors.Malformed(rule="extended tables need clusters of 16 KiB or more")
    return features, header_length, compression


def _extensions(window: Window, offset: int, end: int) -> tuple[int, int] | None:
    """Walk the header extensions up to the end of the first cluster; returns where the LUKS header is."""
    luks: tuple[int, int] | None = None
    for _ in range(MAX_EXTENSIONS):
        if offset + 8 > min(end, window.length):
            return luks
        kind, length = struct.unpack(">II", window.exact(offset, 8))
        if kind == _EXT_END:
            return luks
        if length > end - offset - 8:
            raise errors.Malformed(rule="a header extension is longer than the first cluster")
        if kind == _EXT_BACKING_FORMAT:
            raise errors.BackingFile
        if kind == _EXT_DATA_FILE:
            raise errors.DataFile
        if kind == _EXT_BITMAPS:
            raise errors.Bitmaps
        if kind == _EXT_LUKS:
            if length != 16 or luks is not None:
                raise errors.Malformed(rule="the encryption header extension has a wrong size")
            start, size = struct.unpack(">QQ", window.exact(offset + 8, 16))
            window.part(start, size)
            luks = (start, size)
        elif kind != _EXT_FEATURE_NAMES:
            raise errors.UnknownFeature
        offset += 8 + (length + 7) // 8 * 8
    raise errors.Malformed(rule="there are too many header extensions")


def _check_table(window: Window, bits: int, size: int, table: tuple[int, int], extended: bool) -> None:
    offset, entries = table
    if size % 512 or size >= 1 << 62:
        raise errors.Malformed(rule="the virtual size is not a number of 512-byte sectors")
    if entries * 8 > MAX_L1_BYTES:
        raise errors.Malformed(rule="the first-level table is larger than 32 MiB")
    covered = entries * (1 << bits) * ((1 << bits) // (16 if extended else 8))
    if covered < size:
        raise errors.Malformed(rule="the first-level table does not cover the virtual size")
    if entries and offset % (1 << bits):
        raise errors.Malformed(rule="the first-level table is not aligned")
    if entries and offset + entries * 8 > window.length:
        raise Truncated
