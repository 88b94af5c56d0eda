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

from agent.base.faults import declare, fault_point
from agent.host import sysfs
from agent.jobs import desired
from agent.jobs.desired import Row, Wish
from agent.jobs.handlers.common import header_size, secret_of, still_lock, volume_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import AttachmentApply
from agent.wire.results import AttachedDevice, AttachmentsResult

if TYPE_CHECKING:
    from agent.connectors.local import LocalDevice

declare("agent.attachment.decided", "agent.attachment.attached", "agent.attachment.detached")
_PREFIX = "brickyard-"


async def run(context: Context, args: AttachmentApply) -> AttachmentsResult:
    backend, journal = context.services.backend(args.backend), context.services.journal
    path = str(await backend.path(args.volume_id)) if args.wanted else ""
    wish = Wish(args.volume_id, args.backend, args.generation, args.wanted, args.encryption, path)
    rows = await journal.write(partial(desired.decide, wish=wish))
    fault_point("agent.attachment.decided")
    for row in rows:
        if not row.wanted:
            await _detach(row)
            fault_point("agent.attachment.detached")
            await journal.write(partial(desired.remove, attachment_id=row.attachment_id))
    attached = [await _attach(context, row) for row in rows if row.wanted]
    return AttachmentsResult(volume_id=args.volume_id, generation=args.generation, attached=tuple(attached))


async def _attach(context: Context, row: Row) -> AttachedDevice:
    from agent.connectors import local
    from agent.luks.model import passphrase

    services = context.services
    backend = services.backend(row.backend)
    if row.identifiers.get("detach_first"):
        await _detach(row)
    size = await backend.size(row.volume_id) or 0
    key = None
    if row.encryption is not None:
        key = passphrase(secret_of(context, "volume"))
        # Who had the raw device may have changed the header, and the tool that opens it runs as root.
        await asyncio.to_thread(header_size, await backend.path(row.volume_id))
    device = await local.attach(
        await backend.path(row.volume_id),
        row.attachment_id,
        size,
        row.mode == "ro",
        encrypted=row.encryption is not None,
        passphrase=key,
    )
    fault_point("agent.attachment.attached")
    await services.journal.write(partial(desired.put, rows=[_filled(row, device, services.boot_id)]))
    return AttachedDevice(
        attachment_id=row.attachment_id,
        device=device.device,
        raw_device=device.raw_device,
        raw=device.raw,
        diskseq=device.diskseq,
    )


def _filled(row: Row, device: LocalDevice, boot_id: str) -> Row:
    return replace(
        row,
        device=device.device,
        raw_device=device.raw_device,
        raw=device.raw,
        identifiers={"path": device.backing_file, "diskseq": device.diskseq},
        boot_id=boot_id,
    )


async def _detach(row: Row) -> None:
    """DetachIncomplete when something is left; the kernel is asked even where no attach was noted."""
    if _may_be_there(row):
        from agent.connectors import local

        await local.detach(row.attachment_id)


def _may_be_there(row: Row) -> bool:
    """What sysfs tells everyone; spares an agent without privileges a question that only root may ask."""
    name = Path(row.identifiers.get("path") or row.volume_id).name
    return (
        any(loop.file_name == name for loop in sysfs.loop_devices())
        or sysfs.mapper_device(_PREFIX + row.attachment_id) is not None
    )


def needs(args: AttachmentApply) -> Needs:
    still = (still_lock(args.volume_id),) if args.wanted else ()
    return Needs(exclusive=(volume_lock(args.volume_id), *still))


KIND = Kind(
    "attachment.apply",
    run,
    needs,
    secrets=lambda args: frozenset({"volume"} if args.encryption and args.wanted else ()),
)
