"""The paths of one connection, by iSCSI (or iSER) or by NVMe, and waiting for what becomes of them."""

from __future__ import annotations

import asyncio

from agent.host import nvme, scsi
from agent.wire.jobs import Connection
from tests.kernel.support.initiator import until


def ways(connection: Connection) -> list[tuple[str, int, bool]]:
    """Address, port, and whether it works, of each path."""
    if connection.protocol in {"iscsi", "iser"}:
        return [(one.address, one.port, one.healthy) for one in scsi.sessions(connection.target)]
    found = nvme.subsystem(connection.target)
    return [(one.address, one.port, one.live) for one in found.controllers] if found is not None else []


def up(connection: Connection) -> list[bool]:
    """Of each path, whether it works."""
    return [works for _, _, works in ways(connection)]


async def becomes(connection: Connection, wanted: list[bool]) -> None:
    await asyncio.to_thread(until, lambda: up(connection) == wanted, 240, f"the paths are not {wanted}")
