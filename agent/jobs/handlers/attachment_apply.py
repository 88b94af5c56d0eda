"""Make this host's devices of one volume equal to the set that the coordinator decided on.

The decision is in the host's own table before anything is touched, and a row leaves the table only after the kernel
no longer shows its device; so a kill anywhere is healed by doing the same again, or by any newer decision.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.backends.abilities import with_devices
from agent.base.faults import declare, fault_point
from agent.base.log import get_logger
from agent.connectors.registry import connector
from agent.host import sysfs
from agent.host.lvm import ATTACHED_PREFIX
from agent.jobs import desired, remote
from agent.jobs.desired import Row, Wish
from agent.jobs.handlers.common import header_size, secret_of, still_lock, volume_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import AttachmentApply
from agent.wire.results import AttachedDevice, AttachmentsResult

if TYPE_CHECKING:
    from agent.backends.base import Backend

declare("agent.attachment.decided", "agent.attachment.attached", "agent.attachment.detached")
log = get_logger(__name__)
_PREFIX = "brickyard-"


async def run(context: Context, args: AttachmentApply) -> AttachmentsResult:
    journal = context.services.journal
    path = str(await _here(context, args).path(args.volume_id)) if args.wanted and args.connection is None else ""
    if args.connection is not None and args.wanted:
        connector(args.connection.protocol)  # one that this host does not have is refused before anything is decided
    wish = Wish(
        args.volume_id, args.backend, args.generation, args.wanted, args.encryption, path, connection=args.connection
    )
    rows = await journal.write(partial(desired.decide, wish=wish))
    fault_point("agent.attachment.decided")
    for row in rows:
        if not row.wanted:
            if args.force:
                log.warning("a device is taken away by force", volume=row.volume_id, attachment=row.attachment_id)
            shared = any(other.wanted and other.boot_id for other in rows)
            await _detach(row, shared=shared, force=args.force)
            fault_point("agent.attachment.detached")
            await journal.write(partial(desired.remove, attachment_id=row.attachment_id))
    attached = [await _attach(context, row) for row in rows if row.wanted]
    return AttachmentsResult(volume_id=args.volume_id, generation=args.generation, attached=tuple(attached))


def _here(context: Context, args: AttachmentApply) -> Backend:
    return with_devices(context.services.backend(args.backend), args.volume_id)


async def _attach(context: Context, row: Row) -> AttachedDevice:
    if row.identifiers.get("detach_first"):
        await _detach(row, shared=False)
    key = None
    if row.encryption is not None:
        from agent.luks.model import passphrase

        key = passphrase(secret_of(context, "volume"))
    filled = await (_attach_here(context, row, key) if row.connection is None else _attach_there(context, row, key))
    fault_point("agent.attachment.attached")
    await context.services.journal.write(partial(desired.put, rows=[filled]))
    return AttachedDevice(
        attachment_id=filled.attachment_id,
        device=filled.device,
        raw_device=filled.raw_device,
        raw=filled.raw,
        diskseq=filled.identifiers.get("diskseq"),
    )


async def _attach_here(context: Context, row: Row, key: bytes | None) -> Row:
    """A volume of this host."""
    from agent.connectors import local

    backend = context.services.backend(row.backend)
    size = await backend.size(row.volume_id) or 0
    path, encrypted = await backend.path(row.volume_id), row.encryption is not None
    if encrypted:
        # Who had the raw device may have changed the header, and the tool that opens it runs as root.
        await asyncio.to_thread(header_size, path)
    device = await local.attach(path, row.attachment_id, size, row.mode == "ro", encrypted=encrypted, passphrase=key)
    return replace(
        row,
        device=device.device,
        raw_device=device.raw_device,
        raw=device.raw,
        identifiers={"path": device.backing_file, "diskseq": device.diskseq},
        boot_id=context.services.boot_id,
    )


async def _attach_there(context: Context, row: Row, key: bytes | None) -> Row:
    """A volume of another host, whose target vouches for its header."""
    connection = row.connection
    assert connection is not None
    chap = context.secret("chap").value() if connection.auth == "chap" else None
    found, device = await remote.attach(row, connection, chap, key)
    return replace(
        row,
        device=device,
        raw_device=found.device,
        raw=row.encryption is not None and device == found.device,
        # What was to go first is gone: kept, the next set would end a device that is in use.
        identifiers={
            **{key: value for key, value in row.identifiers.items() if key != "detach_first"},
            "diskseq": found.diskseq,
            "paths": list(found.paths),
            "how": found.how,
        },
        boot_id=context.services.boot_id,
    )


async def _detach(row: Row, *, shared: bool, force: bool = False) -> None:
    """DetachIncomplete when something is left; the kernel is asked even where no attach was noted."""
    if row.connection is not None:
        await remote.detach(row, row.connection, shared=shared, force=force)
    elif _may_be_there(row):
        from agent.connectors import local

        await local.detach(row.attachment_id, force=force)


def _may_be_there(row: Row) -> bool:
    """What sysfs tells everyone; spares an agent without privileges a question that only root may ask."""
    name = Path(row.identifiers.get("path") or row.volume_id).name  # somebody may have moved the file since
    return (
        any(loop.file_name == name or f"/dev/{loop.name}" == row.raw_device for loop in sysfs.loop_devices())
        or sysfs.mapper_device(_PREFIX + row.attachment_id) is not None
        or sysfs.mapper_device(ATTACHED_PREFIX + row.attachment_id) is not None
    )


def needs(args: AttachmentApply) -> Needs:
    still = (still_lock(args.volume_id),) if args.wanted else ()
    return Needs(exclusive=(volume_lock(args.volume_id), *still))


def secrets(args: AttachmentApply) -> frozenset[str]:
    chap = args.connection is not None and args.connection.auth == "chap"
    asked = {"volume": args.encryption is not None, "chap": chap}
    return frozenset(name for name, needed in asked.items() if needed and args.wanted)


KIND = Kind(
    "attachment.apply",
    run,
    needs,
    secrets=secrets,
)
