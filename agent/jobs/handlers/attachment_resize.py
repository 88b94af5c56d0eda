"""A volume of another host has grown: let this host's device of it follow, layer by layer."""

from __future__ import annotations

from agent.connectors.errors import NotAttached
from agent.jobs import desired, remote
from agent.jobs.handlers.common import one_volume, secret_of
from agent.jobs.kinds import Context, Kind
from agent.wire.jobs import AttachmentResize
from agent.wire.results import ResizedResult


async def run(context: Context, args: AttachmentResize) -> ResizedResult:
    rows = await context.services.journal.read(lambda db: desired.of_volume(db, args.volume_id))
    sizes: dict[str, int] = {}
    for row in rows:
        if row.connection is None or not row.wanted:
            continue
        if row.boot_id != context.services.boot_id:
            raise NotAttached(noun="attachment", id=row.attachment_id, attachment=row.attachment_id)
        key = None
        if args.encrypted:
            from agent.luks.model import passphrase

            key = passphrase(secret_of(context, "volume"))
        sizes[row.attachment_id] = await remote.resize(row, row.connection, args.size_bytes, key)
    return ResizedResult(volume_id=args.volume_id, sizes=sizes)


KIND = Kind(
    "attachment.resize",
    run,
    lambda args: one_volume(args.volume_id),
    secrets=lambda args: frozenset({"volume"} if args.encrypted else ()),
)
