"""The first bytes that a guest would see of a qcow2 image, found without any tool."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from agent.images.errors import Malformed
from agent.images.qcow2 import Qcow2
from agent.luks.errors import Truncated
from agent.luks.window import Window

_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_ALL_ZERO = 1
# A cluster has 2 MiB at most, so no honest frame looks further back.
_WINDOW = 8 << 20
Decrypt = Callable[[bytes, int], bytes]


def read(window: Window, image: Qcow2, count: int, decrypt: Decrypt | None = None) -> bytes:
    """The first `count` clear bytes (fewer when the disk is smaller); `count` is a multiple of 512.

    `decrypt(data, first_sector)` gets whole sectors with their number in the host file. Raises Truncated,
    Malformed.
    """
    cluster = 1 << image.cluster_bits
    count = min(count, image.virtual_size)
    parts = []
    for at in range(0, count, cluster):
        wanted = min(cluster, count - at)
        parts.append(_cluster(window, image, at // cluster, wanted, decrypt))
    return b"".join(parts)


def _cluster(window: Window, image: Qcow2, index: int, wanted: int, decrypt: Decrypt | None) -> bytes:
    entry, bitmap = _entry(window, image, index)
    if entry & _COMPRESSED:
        return inflated(window, image, entry, wanted)
    host = entry & _OFFSET
    if not host or (not image.extended_l2 and image.version >= 3 and entry & _ALL_ZERO):
        return bytes(wanted)
    data = window.read(host, wanted).ljust(wanted, b"\0")
    if decrypt is not None:
        data = decrypt(data, host // 512)
    if image.extended_l2:
        data = _masked(data, bitmap, (1 << image.cluster_bits) // 32)
    return data


def _entry(window: Window, image: Qcow2, index: int) -> tuple[int, int]:
    width = 16 if image.extended_l2 else 8
    per_table = (1 << image.cluster_bits) // width
    if index // per_table >= image.l1_entries:
        raise Malformed(rule="the first-level table does not cover the virtual size")
    (l1,) = struct.unpack(">Q", window.exact(image.l1_offset + index // per_table * 8, 8))
    table = l1 & _OFFSET
    if not table:
        return 0, 0
    raw = window.exact(table + index % per_table * width, width)
    (entry,) = struct.unpack_from(">Q", raw)
    bitmap = struct.unpack_from(">Q", raw, 8)[0] if image.extended_l2 else 0
    return entry, bitmap


def _masked(data: bytes, bitmap: int, subcluster: int) -> bytes:
    """Blank the parts of an extended cluster that are not allocated (low half of the bitmap)."""
    parts = []
    for at in range(0, len(data), subcluster):
        part = data[at : at + subcluster]
        parts.append(part if bitmap >> (at // subcluster) & 1 else bytes(len(part)))
    return b"".join(parts)


def inflated(window: Window, image: Qcow2, entry: int, wanted: int) -> bytes:
    """The first `wanted` bytes of a compressed cluster, and no more of it; raises Truncated."""
    split = 62 - (image.cluster_bits - 8)
    offset = entry & ((1 << split) - 1)
    sectors = (entry & (_COMPRESSED - 1)) >> split
    stored = window.read(offset, (sectors + 1) * 512 - (offset & 511))
    data = _unzstd(stored, wanted) if image.zstd else _inflate(stored, wanted)
    if len(data) != wanted:
        raise Truncated
    return data


def _inflate(stored: bytes, wanted: int) -> bytes:
    try:
        return zlib.decompressobj(wbits=-12).decompress(stored, wanted)
    except zlib.error:
        raise Truncated from None


def _unzstd(stored: bytes, wanted: int) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(stored).read(wanted)
    except (zstandard.ZstdError, MemoryError):
        raise Truncated from None
