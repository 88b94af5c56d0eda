"""Offer a volume of this host to exactly the consumers that the coordinator decided on.

The decision, with its secrets sealed, is in the host's own table before the kernel is touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from agent.backends.abilities import IN_CLUSTER, in_cluster, with_devices
from agent.base.faults import declare, fault_point
from agent.jobs import exports
from agent.jobs.handlers.common import header_size, still_lock, volume_lock
from agent.jobs.kinds import Context, Kind, Needs
from agent.jobs.offering import offer
from agent.wire.jobs import ExportApply
from agent.wire.results import Exported, ExportsResult

declare("agent.export.decided")


async def run(context: Context, args: ExportApply) -> ExportsResult:
    services = context.services
    for one in args.wanted:
        if one.protocol == IN_CLUSTER:
            in_cluster(services.backend(args.backend))
        else:
            services.target(one.protocol)
            with_devices(services.backend(args.backend), args.volume_id)
    if args.wanted and (args.encrypted or any(one.protocol != IN_CLUSTER for one in args.wanted)):
        path = await services.backend(args.backend).path(args.volume_id)
        if args.encrypted:
            # Who had the raw device may have changed the header, and the tool that opens it runs as root.
            await asyncio.to_thread(header_size, path)
    known = await services.journal.read(lambda db: exports.of_volume(db, args.volume_id))
    sealed, logins = await asyncio.to_thread(_secrets, context, args, known)
    wish = exports.Wish(args.volume_id, args.backend, args.generation, args.wanted, sealed, logins)
    rows = await services.journal.write(partial(exports.decide, wish=wish))
    fault_point("agent.export.decided")
    made = await offer(services, args.volume_id, rows)
    exported = tuple(
        Exported(attachment_id=one.attachment_id, connection=made[one.attachment_id]) for one in args.wanted
    )
    return ExportsResult(volume_id=args.volume_id, generation=args.generation, exported=exported)


def _secrets(
    context: Context, args: ExportApply, known: Sequence[exports.Row]
) -> tuple[dict[str, str], dict[str, exports.Login]]:
    """The posted secrets, sealed, and how the consumers that are let in by now log in."""
    asked = [one.attachment_id for one in args.wanted if one.auth == "chap"]
    if not asked:
        return {}, {}
    sealer = context.services.sealing()
    sealed = {each: sealer.seal(context.secret(f"chap.{each}").value(), each) for each in asked}
    return sealed, exports.logins_of(known, sealer)


def needs(args: ExportApply) -> Needs:
    still = (still_lock(args.volume_id),) if args.wanted else ()
    return Needs(exclusive=(volume_lock(args.volume_id), *still))


def secrets(args: ExportApply) -> frozenset[str]:
    return frozenset(f"chap.{one.attachment_id}" for one in args.wanted if one.auth == "chap")


KIND = Kind("export.apply", run, needs, secrets=secrets)
