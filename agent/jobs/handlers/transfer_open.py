"""A ticket on the data port for one peer: to read a kept image, or to write one that arrives.

A ticket lives in this process, so a run after a restart opens a new one under a new name.
"""

from __future__ import annotations

from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import TransferOpen
from agent.wire.results import TransferResult


async def run(context: Context, args: TransferOpen) -> TransferResult:
    store, port = context.services.image_store(), context.services.transfers()
    path = store.kept_path(args.image_id) if args.direction == "read" else store.incoming_path(args.image_id)
    name = await port.open_ticket(path, args.direction, args.peer, float(args.lifetime_s), args.max_bytes)
    return TransferResult(name=name, port=port.port)


KIND = Kind("transfer.open", run, lambda args: Needs(exclusive=(f"image-{args.image_id}",)))
