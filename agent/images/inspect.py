"""Refuse an image by rule before any tool opens it. Formats are declared and checked, never guessed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Literal

from agent.images import errors, guest, magic, qcow2, unpack
from agent.luks import header
from agent.luks.details import Details
from agent.luks.model import DEFAULT_LIMITS, KdfLimits, Secret, passphrase
from agent.luks.unlock import Opened, unlock
from agent.luks.window import Window, whole_file

ImageFormat = Literal["qcow2", "raw", "luks", "gzip"]
"""`gzip`: a compressed one, of which nothing else is known before it is unpacked."""
MAX_VIRTUAL = 1 << 46
COMPRESSED = "compressed"
_FRONT = 65536


@dataclass(frozen=True, slots=True)
class Declared:
    """What the image's owner says it is."""

    disk_format: str
    container_format: str = "bare"
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_virtual` bytes the image may unpack to (the volume's size where there is one); cost of LUKS headers."""

    max_virtual: int = MAX_VIRTUAL
    kdf: KdfLimits = DEFAULT_LIMITS


DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Inspection:
    """An accepted image. `virtual_size` is in clear bytes; `luks` is None for a plain image."""

    format: ImageFormat
    virtual_size: int
    encrypted: bool
    luks: Details | None = None
    qcow2: qcow2.Qcow2 | None = None


def declared_format(declared: Declared) -> ImageFormat:
    """The one format an image may have; raises FormatUnsupported."""
    if declared.container_format == COMPRESSED:
        declared_format(replace(declared, container_format="bare"))
        return "gzip"
    pair = (declared.disk_format, declared.container_format)
    if pair == ("qcow2", "bare"):
        return "qcow2"
    if pair in (("raw", "luks"), ("luks", "bare"), ("luks", "luks")) or (
        pair == ("raw", "bare") and declared.encrypted
    ):
        return "luks"
    if pair == ("raw", "bare"):
        return "raw"
    raise errors.FormatUnsupported(
        disk_format=repr(declared.disk_format[:32]), container_format=repr(declared.container_format[:32])
    )


def inspect(fd: int, declared: Declared, limits: Limits = DEFAULT) -> Inspection:
    """Read what is needed of `fd` (regular file or block device, position untouched) and accept or refuse it.

    Raises an ImageRefused or HeaderRefused subclass. Reads at most a few MiB; blocking.
    """
    wanted = declared_format(declared)
    window = whole_file(fd)
    if window.length == 0:
        raise errors.ImageEmpty
    if wanted == "gzip":
        if window.read(0, len(unpack.MAGIC)) != unpack.MAGIC:
            raise errors.NotCompressed
        return Inspection("gzip", 0, declared.encrypted)
    if wanted == "qcow2":
        found = _qcow2(window, declared, limits)
    elif wanted == "luks":
        found = _luks(window, limits)
    else:
        found = _raw(window)
    if found.virtual_size > limits.max_virtual:
        gib = -(-found.virtual_size // (1 << 30))
        raise errors.ImageSize(virtual=found.virtual_size, limit=limits.max_virtual, gib=gib)
    return found


def _raw(window: Window) -> Inspection:
    found = magic.formats(window)
    if "luks" in found:
        raise errors.UndeclaredEncryption
    if len(found) > 1:
        raise errors.Polyglot
    if found:
        raise errors.FormatMismatch(declared="raw", found=next(iter(found)))
    return Inspection("raw", -(-window.length // 512) * 512, encrypted=False)


def _luks(window: Window, limits: Limits) -> Inspection:
    found = magic.formats(window) - {"vhd", "dmg"} if window.read(0, 6) == header.MAGIC else magic.formats(window)
    if len(found) > 1:
        raise errors.Polyglot
    if found - {"luks"}:
        raise errors.FormatMismatch(declared="luks", found=next(iter(found)))
    details = header.parse(window, limits.kdf)
    if magic.disk_formats(window.read(0, min(details.payload_offset, _FRONT))):
        raise errors.Polyglot
    return Inspection("luks", details.payload_bytes, encrypted=True, luks=details)


def _qcow2(window: Window, declared: Declared, limits: Limits) -> Inspection:
    found = magic.head_formats(window.read(0, magic.HEAD_BYTES))
    if len(found) > 1:
        raise errors.Polyglot
    if found != {"qcow"}:
        raise errors.FormatMismatch(declared="qcow2", found=next(iter(found), "raw"))
    image = qcow2.parse(window)
    if magic.disk_formats(window.read(0, min(1 << image.cluster_bits, _FRONT))):
        raise errors.Polyglot
    if image.luks is None:
        if declared.encrypted:
            raise errors.NotEncrypted
        nested(guest.read(window, image, magic.HEAD_BYTES), "qcow2")
        return Inspection("qcow2", image.virtual_size, encrypted=False, qcow2=image)
    if not declared.encrypted:
        raise errors.UndeclaredEncryption
    details = header.parse(window.part(*image.luks), limits.kdf, data_elsewhere=True)
    return Inspection("qcow2", image.virtual_size, encrypted=True, luks=details, qcow2=image)


def nested(head: bytes, outer: str) -> None:
    """Raise NestedFormat when clear content begins like an image itself."""
    found = magic.head_formats(head)
    if found:
        raise errors.NestedFormat(outer=outer, found=min(found))


def open_encrypted(fd: int, found: Inspection, secret: Secret, limits: Limits = DEFAULT) -> Opened:
    """Open an accepted encrypted image in memory and inspect the clear content's beginning.

    Raises WrongSecret, NestedFormat. Blocking, takes seconds.
    """
    window = whole_file(fd)
    if found.qcow2 is not None and found.qcow2.luks is not None:
        part = window.part(*found.qcow2.luks)
        opened = unlock(part, header.read(part, limits.kdf, data_elsewhere=True), passphrase(secret))
        head = guest.read(window, found.qcow2, magic.HEAD_BYTES, opened.decrypt)
    else:
        opened = unlock(window, header.read(window, limits.kdf), passphrase(secret))
        details = opened.header.details
        whole = min(magic.HEAD_BYTES, details.payload_bytes) // details.sector_size * details.sector_size
        head = opened.decrypt(window.exact(details.payload_offset, whole), 0)
    nested(head, found.format)
    return opened


async def inspect_async(fd: int, declared: Declared, limits: Limits = DEFAULT) -> Inspection:
    """`inspect` off the event loop."""
    return await asyncio.to_thread(inspect, fd, declared, limits)
