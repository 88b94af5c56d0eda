"""From an image to the content of a volume: inspected, opened, then streamed or re-encrypted into a half-made file.

Clear data of an encrypted volume is only ever in memory. The header of the volume is hidden until its content is
there, so a half-made volume can not be opened; publishing the file is the caller's. Where something goes wrong the
file is left empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace

from agent.base.errors import BrickyardError
from agent.copying.engine import copy
from agent.copying.model import Checkpoint, Dest, by_fd
from agent.images.content import source_of
from agent.images.conversion import Means, OpenedImage, Target, Watch, Work, new_header
from agent.images.errors import NeedsEncryptedType, SecretMissing
from agent.images.inspect import Inspection, inspect_async, open_encrypted
from agent.images.resume import NEVER, Resume
from agent.luks.blank import empty, half_made, holds
from agent.luks.container import check_format, reveal, take_up
from agent.luks.model import Format
from agent.luks.payload import encrypting
from agent.luks.unlock import Opened

__all__ = ["Means", "OpenedImage", "Target", "Watch", "image_to_volume"]


async def image_to_volume(
    image: OpenedImage, target: Target, means: Means, watch: Watch, resume: Resume = NEVER
) -> Inspection:
    """Fill `target.path` (an existing file) with the image's content and zeros to the end; durable on return.

    A repeat goes on where `resume` says, if the file is the one it speaks of, else begins from nothing. Raises
    ImageRefused, HeaderRefused, WrongSecret, NeedsEncryptedType, SecretMissing, CopyCancelled, DestinationFull
    and their kin; image and key are checked before the file is touched.
    """
    if target.encryption is not None:
        check_format(target.encryption)
        if target.secret is None:
            raise SecretMissing(what="volume")
    limits = replace(means.limits, max_virtual=min(means.limits.max_virtual, target.usable))
    found = await inspect_async(image.fd, image.declared, limits)
    opened = None
    if found.encrypted:
        if target.encryption is None:
            raise NeedsEncryptedType
        if image.secret is None:
            raise SecretMissing(what="image")
        opened = await asyncio.to_thread(open_encrypted, image.fd, found, image.secret, limits)
    fd = await asyncio.to_thread(half_made, target.path)
    work = Work(image, found, opened, target, fd, means, watch)
    try:
        if target.encryption is None:
            await _plain(work, resume)
        else:
            await _encrypted(work, target.encryption, resume)
    except Exception:
        # A task that is only cancelled is handed back, and goes on from its checkpoint later.
        with contextlib.suppress(OSError, BrickyardError):
            await asyncio.to_thread(empty, fd, 0)
        raise
    finally:
        await asyncio.to_thread(os.close, fd)
    return found


async def _plain(work: Work, resume: Resume) -> None:
    info = os.fstat(work.fd)
    checkpoint = resume.checkpoint(f"inode {info.st_ino}, device {info.st_rdev}")
    if checkpoint.start == 0:
        await asyncio.to_thread(empty, work.fd, work.target.size)
    await _copy(work, Dest(by_fd(work.fd), work.target.usable, zeros_skippable=True), checkpoint)


async def _encrypted(work: Work, fmt: Format, resume: Resume) -> None:
    made = await asyncio.to_thread(_taken_up, work, fmt, resume)
    if made is None:
        await asyncio.to_thread(empty, work.fd, work.target.size)
        made = await asyncio.to_thread(new_header, work, fmt)
    dest = Dest(by_fd(work.fd), work.target.usable, base=made.header.details.payload_offset, change=encrypting(made))
    await _copy(work, dest, resume.checkpoint(made.header.uuid))
    await asyncio.to_thread(reveal, work.fd, fmt)


def _taken_up(work: Work, fmt: Format, resume: Resume) -> Opened | None:
    """The header of the earlier run, if there was one and this is its file."""
    if not resume.file or not holds(work.fd, work.target.size):
        return None
    assert work.target.secret is not None
    made = take_up(work.fd, fmt, work.target.secret)
    return made if made is not None and made.header.uuid == resume.file else None


async def _copy(work: Work, dest: Dest, checkpoint: Checkpoint) -> None:
    watch = work.watch
    source = source_of(work.image.fd, work.found, work.opened)
    options = replace(watch.options, phase=watch.phase)
    await copy(source, dest, options, watch.report, checkpoint, watch.cancel)
