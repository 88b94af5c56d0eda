"""End a ticket of the data port; one that is gone already is fine."""

from __future__ import annotations

from agent.jobs.kinds import Context, Kind, Needs
from agent.wire.jobs import TransferClose


async def run(context: Context, args: TransferClose) -> None:
    await context.services.transfers().close_ticket(args.name)


KIND = Kind("transfer.close", run, lambda args: Needs())
