"""The content of a volume in another encryption, or in none: read in clear piece by piece, written anew beside it.

Clear data of an encrypted volume is only ever in memory. The new header is hidden until its content is there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from agent.copying.engine import copy
from agent.copying.model import Checkpoint, CopyOptions, CopyProgress, Dest, Source, by_fd
from agent.luks import header
from agent.luks.blank import empty, half_made, holds
from agent.luks.container import check_format, create, reveal, take_up
from agent.luks.model import Format, Secret, device_bytes, passphrase
from agent.luks.payload import encrypting, payload
from agent.luks.unlock import Opened, unlock
from agent.luks.window import whole_file


@dataclass(frozen=True, slots=True)
class Target:
    """The half-made file or device, the bytes a user gets, and how they are to be encrypted (all None: not at all)."""

    path: Path
    usable: int
    encryption: Format | None = None
    secret: Secret | None = None
    iterations: int = 0

    @property
    def size(self) -> int:
        return device_bytes(self.usable, self.encryption)


@dataclass(frozen=True, slots=True)
class Steering:
    """`mark` and `done` are what `save(mark, done)` noted last: which file was written to, and how far it is safe."""

    options: CopyOptions
    progress: Callable[[CopyProgress], None]
    cancel: asyncio.Event
    save: Callable[[str, int], Awaitable[None]]
    mark: str = ""
    done: int = 0

    def checkpoint(self, mark: str) -> Checkpoint:
        """For a copy into the file of that mark: from its beginning unless it is the one that was spoken of."""

        async def note(done: int) -> None:
            await self.save(mark, done)

        return Checkpoint(self.done if mark == self.mark else 0, note)


async def recrypt(source: Path, secret: Secret | None, target: Target, how: Steering) -> None:
    """Fill the target with the content of the volume at `source`, which `secret` opens if it is encrypted.

    Durable on return; a repeat goes on where `how` says. The source must not change meanwhile and is only read.
    Raises WrongSecret, HeaderRefused, FormatRefused, TargetInUse, DestinationFull, CopyCancelled and their kin.
    """
    if target.encryption is not None:
        check_format(target.encryption)
    read = await asyncio.to_thread(os.open, source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        opened = None if secret is None else await asyncio.to_thread(_unlocked, read, secret)
        have = target.usable if opened is None else min(opened.header.details.payload_bytes, target.usable)
        inside = None if opened is None else payload(opened)
        written = await asyncio.to_thread(half_made, target.path)
        try:
            await _write(Source(by_fd(read), have, inside), written, target, how)
        finally:
            await asyncio.to_thread(os.close, written)
    finally:
        await asyncio.to_thread(os.close, read)


def is_of(path: Path, fmt: Format, secret: Secret) -> bool:
    """Whether the volume at `path` has that encryption and its secret opens it. Blocking, takes seconds."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = take_up(fd, fmt, secret)
        return found is not None and found.header.details.cipher == fmt.cipher
    finally:
        os.close(fd)


def _unlocked(fd: int, secret: Secret) -> Opened:
    window = whole_file(fd)
    return unlock(window, header.read(window), passphrase(secret), "the volume")


async def _write(source: Source, fd: int, target: Target, how: Steering) -> None:
    if target.encryption is None:
        info = os.fstat(fd)
        checkpoint = how.checkpoint(f"inode {info.st_ino}, device {info.st_rdev}")
        dest = Dest(by_fd(fd), target.usable, zeros_skippable=True)
        await copy(source, dest, how.options, how.progress, checkpoint, how.cancel)
        return
    made = await asyncio.to_thread(_header, fd, target, how.mark)
    dest = Dest(by_fd(fd), target.usable, base=made.header.details.payload_offset, change=encrypting(made))
    await copy(source, dest, how.options, how.progress, how.checkpoint(made.header.uuid), how.cancel)
    await asyncio.to_thread(reveal, fd, target.encryption)


def _header(fd: int, target: Target, mark: str) -> Opened:
    """The hidden header of the earlier run, if this is its file, else a new one."""
    assert target.encryption is not None
    assert target.secret is not None
    if mark and holds(fd, target.size):
        made = take_up(fd, target.encryption, target.secret)
        if made is not None and made.header.uuid == mark:
            return made
    empty(fd, target.size)
    return create(fd, target.encryption, target.secret, iterations=target.iterations)
