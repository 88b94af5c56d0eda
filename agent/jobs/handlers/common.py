"""What several handlers share: names of resources, keys and formats as the lower parts know them, progress."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.backends.base import Work
from agent.backends.errors import VolumeNotFound
from agent.base.errors import BrickyardError, Temporary
from agent.base.log import get_logger
from agent.copying.model import Checkpoint, CopyOptions, CopyProgress
from agent.host.run import uninterrupted
from agent.jobs import desired, exports
from agent.jobs.errors import VolumeInUse, VolumeWritten
from agent.jobs.kinds import Checkpoint as JobCheckpoint
from agent.jobs.kinds import Context, Needs
from agent.luks.model import Format, Secret
from agent.wire.jobs import HttpSource, ImageService, LuksFormat, Progress

if TYPE_CHECKING:
    from sqlite_utils import Database

    from agent.backends.base import Backend


def volume_lock(volume_id: str) -> str:
    """Held while a volume is made, changed, attached or removed."""
    return f"volume-{volume_id}"


def content_lock(thing_id: str) -> str:
    """Held shared while a volume or snapshot is read from, alone while it goes away."""
    return f"content-{thing_id}"


def still_lock(volume_id: str) -> str:
    """Held shared while a volume is copied from, alone while it is given to somebody who may write to it."""
    return f"still-{volume_id}"


def one_volume(volume_id: str) -> Needs:
    return Needs(exclusive=(volume_lock(volume_id),))


def secret_of(context: Context, name: str) -> Secret:
    """A posted secret as the header code takes it; SecretMissing."""
    posted = context.secret(name)
    return Secret(posted.type, posted.value())


def format_of(encryption: LuksFormat) -> Format:
    return Format(encryption.format, encryption.cipher, encryption.key_size)


def reporter(context: Context) -> Callable[[CopyProgress], None]:
    """Progress of a copy told as progress of the job."""

    def tell(now: CopyProgress) -> None:
        context.report(
            Progress(phase=now.phase, done=now.done, total=now.total, rate=max(now.rate, 0.0), eta_s=now.eta_s)
        )

    return tell


def metered(context: Context, phase: str, total: int) -> Callable[[int], None]:
    """Tells how far `done` bytes of `total` are, with the mean rate since the start."""
    started = time.monotonic()

    def tell(done: int) -> None:
        rate = done / max(time.monotonic() - started, 0.001)
        eta = (total - done) / rate if rate > 0 and total else None
        context.report(Progress(phase=phase, done=done, total=total, rate=rate, eta_s=eta))

    return tell


def web_token(context: Context, named: HttpSource | ImageService) -> str | None:
    """The login for an image service, where it wants one; SecretMissing when it was not posted."""
    return context.secret("token").value().decode() if named.token else None


def steered(context: Context, phase: str, mark: str) -> Work:
    """How a long verb of a back end is steered and watched as this job; `mark` names its checkpoint."""
    start = int((context.checkpoint or {}).get(mark, 0))
    return Work(
        options=CopyOptions(rate_limit=context.services.rate_limit, phase=phase),
        progress=reporter(context),
        checkpoint=Checkpoint(start=start, save=lambda done: context.save({mark: done})),
        cancel=context.cancel,
        begun=bool(context.checkpoint),
    )


async def noted(context: Context, backend: Backend, volume_id: str, device_bytes: int) -> JobCheckpoint:
    """The job's checkpoint, if the half-made volume that it speaks of is there, else nothing.

    A back end may give what it makes anew the very marks of what was there before.
    """
    if context.checkpoint and await backend.prepared(volume_id) == device_bytes:
        return context.checkpoint
    return {}


def header_size(path: Path) -> int:
    """Bytes of the LUKS header before the payload, as the volume's own header says. Blocking."""
    from agent.luks import header
    from agent.luks.window import whole_file

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return header.parse(whole_file(fd)).payload_offset
    finally:
        os.close(fd)


async def rekey(context: Context, path: Path) -> None:
    """Let the secret `volume` alone open the volume at `path`, which `source` opened. Again is fine: see `slots`."""
    from agent.luks.model import iterations_for

    old, new = secret_of(context, "source"), secret_of(context, "volume")
    iterations = iterations_for(new, None, context.services.passphrase_iterations)
    await uninterrupted(asyncio.to_thread(_rekey, path, old, new, iterations))


def _rekey(path: Path, old: Secret, new: Secret, iterations: int) -> None:
    from agent.luks import slots

    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        slots.rekey(fd, old, new, iterations=iterations)
    finally:
        os.close(fd)


async def destroy_keys(finding: Awaitable[Path]) -> None:
    """Make the content of an encrypted volume or snapshot unreadable before its space is given back.

    `finding` tells where it lies. What can not be destroyed, ever, is told in the log, and goes away all the same: a
    delete must not get stuck.
    """
    try:
        path = await finding
    except Temporary:
        raise
    except VolumeNotFound:
        return
    except BrickyardError as failure:
        get_logger(__name__).warning("the keys of a deleted volume were not destroyed", reason=str(failure))
        return
    try:
        await asyncio.to_thread(_destroy_keys, path)
    except (BrickyardError, OSError) as failure:
        get_logger(__name__).warning("the keys of a deleted volume were not destroyed", reason=str(failure))


def _destroy_keys(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.pread(fd, 4, 0) == b"LUKS" or os.pread(fd, 4, 16384) == b"SKUL":
            from agent.luks.slots import erase

            erase(fd)
    finally:
        os.close(fd)


def forgotten(db: Database, volume_id: str) -> None:
    """This host has the volume no more: its generations are of no more use."""
    desired.forget_volume(db, volume_id)
    exports.forget_volume(db, volume_id)


async def refuse_if_in_use(context: Context, backend: Backend, volume_id: str) -> None:
    """VolumeInUse when this host has, or was told to have, the volume attached; names what holds it."""
    holders = await _holders(context, backend, volume_id, writers=False)
    if holders:
        raise VolumeInUse(volume_id=volume_id, holder=" and ".join(holders))


async def refuse_if_written(context: Context, backend: Backend, volume_id: str) -> None:
    """VolumeWritten when the volume may change while it is copied: the copy would be of no one moment.

    A back end that shares data keeps a moment of a volume in use. The caller holds the still lock, so that
    nothing is attached during the copy.
    """
    if all(pool.reflink for pool in await backend.pools()):
        return
    holders = await _holders(context, backend, volume_id, writers=True)
    if holders:
        raise VolumeWritten(volume_id=volume_id, holder=" and ".join(holders), backend=backend.name)


async def _holders(context: Context, backend: Backend, volume_id: str, *, writers: bool) -> list[str]:
    rows = await context.services.journal.read(lambda db: desired.of_volume(db, volume_id))
    holders = [
        f"attachment {row.attachment_id}" + (f" ({row.device})" if row.device else " (being attached)")
        for row in rows
        if not writers or row.mode == "rw"
    ]
    return holders or await backend.holders(volume_id, writers=writers)
