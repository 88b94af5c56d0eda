"""From an image to the content of a volume: inspected, opened, then copied or re-encrypted into a half-made file.

Clear data of an encrypted volume is never written to a disk: a tool that holds both keys re-encrypts from file to
file. Publishing the file is the caller's. Whatever goes wrong, the half-made file is left empty, so that it can not
be opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from agent.copying.engine import copy
from agent.copying.model import CopyOptions, Dest, Source, by_fd, by_path
from agent.images.errors import NeedsEncryptedType, SecretMissing
from agent.images.inspect import DEFAULT, Declared, Inspection, Limits, inspect_async, open_encrypted
from agent.luks.convert import Node, Watch, convert
from agent.luks.model import Format, Secret, device_bytes, iterations_for, passphrase
from agent.luks.second import fill_luks2
from agent.luks.tool import check_format, format_header, fresh


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image's open file, what it was declared to be, and its secret when it is encrypted."""

    fd: int
    declared: Declared
    secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The half-made file, the bytes a user gets, and how they are encrypted (both None for a plain volume)."""

    path: Path
    usable: int
    encryption: Format | None = None
    secret: Secret | None = None

    @property
    def size(self) -> int:
        return device_bytes(self.usable, self.encryption)


@dataclass(frozen=True, slots=True)
class Means:
    """What a conversion may use."""

    limits: Limits = DEFAULT
    passphrase_iterations: int = 2_000_000


async def image_to_volume(image: OpenedImage, target: Target, means: Means, watch: Watch) -> Inspection:
    """Fill `target.path` (an existing file) with the image's content and zeros to the end; durable on return.

    A repeat begins from nothing. Raises ImageRefused, HeaderRefused, WrongSecret, NeedsEncryptedType,
    SecretMissing, CopyCancelled, DestinationFull, ConversionFailed and their kin; image and key
    are checked before the file is touched.
    """
    if target.encryption is not None:
        check_format(target.encryption)
        if target.secret is None:
            raise SecretMissing(what="volume")
    limits = replace(means.limits, max_virtual=min(means.limits.max_virtual, target.usable))
    found = await inspect_async(image.fd, image.declared, limits)
    iterations = None
    if found.encrypted:
        if target.encryption is None:
            raise NeedsEncryptedType
        if image.secret is None:
            raise SecretMissing(what="image")
        opened = await asyncio.to_thread(open_encrypted, image.fd, found, image.secret, limits)
        iterations = opened.iterations
    if found.format == "raw" and target.encryption is None:
        await _copy(image, target, watch)
        return found
    fd = await asyncio.to_thread(fresh, target.path, target.size)
    try:
        await _fill(_Work(image, found, target, fd, means, watch), iterations)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
        raise
    finally:
        await asyncio.to_thread(os.close, fd)
    return found


@dataclass(frozen=True, slots=True)
class _Work:
    image: OpenedImage
    found: Inspection
    target: Target
    fd: int
    means: Means
    watch: Watch

    def source(self) -> Node:
        key = passphrase(self.image.secret) if self.found.encrypted and self.image.secret else None
        return Node(self.image.fd, self.found.format, key)


async def _copy(image: OpenedImage, target: Target, watch: Watch) -> None:
    size = os.fstat(image.fd).st_size
    options = CopyOptions(rate_limit=watch.rate_limit, phase=watch.phase)
    dest = Dest(by_path(target.path), target.usable, zeros_skippable=True)
    await copy(Source(by_fd(image.fd), size), dest, options, watch.report, None, watch.cancel)


async def _fill(work: _Work, source_iterations: int | None) -> None:
    target, clear = work.target, work.found.virtual_size
    if target.encryption is None:
        node = Node(work.fd, "raw")
        await convert(work.source(), node, clear_bytes=clear, usable=target.usable, target_zero=True, watch=work.watch)
        return
    assert target.secret is not None
    iterations = iterations_for(target.secret, source_iterations, work.means.passphrase_iterations)
    if target.encryption.format == "luks2":
        await fill_luks2(
            work.source(),
            work.fd,
            target.encryption,
            target.secret,
            clear_bytes=clear,
            usable=target.usable,
            iterations=iterations,
            watch=work.watch,
        )
        return
    lock = work.watch.lock_fd
    await format_header(work.fd, target.encryption, target.secret, iterations=iterations, lock_fd=lock)
    node = Node(work.fd, "luks", passphrase(target.secret))
    await convert(work.source(), node, clear_bytes=clear, usable=target.usable, target_zero=False, watch=work.watch)
