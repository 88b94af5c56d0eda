"""Bringing the kernel's exports of one volume to what the table wants: the one way, for jobs and after a reboot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sqlite_utils import Database

from agent.backends.abilities import IN_CLUSTER, in_cluster
from agent.base.faults import declare, fault_point
from agent.jobs import exports
from agent.jobs.errors import SecretMissing
from agent.jobs.exports import Row
from agent.targets.base import Consumer, Offered
from agent.wire.jobs import Connection
from agent.wire.results import HostExport

if TYPE_CHECKING:
    from agent.jobs.services import Services

declare("agent.export.applied")


async def offer(services: Services, volume_id: str, rows: Sequence[Row]) -> dict[str, Connection]:
    """Make it so, protocol by protocol, then write it down; by attachment how each consumer reaches the volume.

    NoTarget, SecretMissing (it can not be opened again), and what the target raises.
    """
    connections: dict[str, Connection] = {}
    for protocol in dict.fromkeys(row.protocol for row in rows):
        wanted = [row for row in rows if row.protocol == protocol and row.wanted]
        if protocol == IN_CLUSTER:
            connections.update([await _in_cluster(services, row) for row in wanted])
            continue
        target = services.target(protocol)
        if not wanted:
            await target.withdraw(volume_id)
            continue
        consumers = [await asyncio.to_thread(_consumer, services, row) for row in wanted]
        path = await services.backend(wanted[0].settings.backend).path(volume_id)
        connections.update(await target.apply(volume_id, path, consumers))
    fault_point("agent.export.applied")
    await services.journal.write(partial(_settled, rows=rows, boot_id=services.boot_id))
    return connections


async def _in_cluster(services: Services, row: Row) -> tuple[str, Connection]:
    cluster = in_cluster(services.backend(row.settings.backend))
    return row.attachment_id, await cluster.reached(row.volume_id, read_only=row.settings.mode == "ro")


def _settled(db: Database, rows: Sequence[Row], boot_id: str) -> None:
    exports.put(db, [replace(row, boot_id=boot_id) for row in rows if row.wanted])
    exports.remove(db, [row.attachment_id for row in rows if not row.wanted])


def _consumer(services: Services, row: Row) -> Consumer:
    settings, secret = row.settings, None
    if settings.sealed:
        secret = exports.secret_of(row, services.sealing())
        if secret is None:
            raise SecretMissing(kind="export.apply", names=f"chap.{row.attachment_id}")
    return Consumer(row.attachment_id, settings.initiator, settings.mode, settings.username, secret)


def differences(services: Services, rows: Sequence[Row]) -> Mapping[str, str]:
    """By attachment why the kernel does not have what the table wants; blocking reads."""
    shown = {protocol: target.offered() for protocol, target in services.targets.items()}
    found: dict[str, str] = {}
    for row in rows:
        there = shown.get(row.protocol, {}).get(row.volume_id)
        if row.protocol == IN_CLUSTER and row.wanted:
            continue  # nothing of this host takes part
        if row.protocol not in shown and row.protocol != IN_CLUSTER:
            found[row.attachment_id] = f"this host has no target for {row.protocol} any more"
        elif not row.wanted:
            found[row.attachment_id] = "it is still to be taken back"
        elif there is None or not there.ready:
            found[row.attachment_id] = "the kernel does not offer it"
        elif row.settings.initiator not in there.initiators:
            found[row.attachment_id] = "its consumer is not let in"
    return found


def shown(services: Services, rows: Sequence[Row], failures: Mapping[str, str]) -> list[HostExport]:
    """Each row as the agent tells it; `failures` by volume. Blocking reads."""
    kernel = {protocol: target.offered() for protocol, target in services.targets.items()}
    wrong = differences(services, rows)
    found = []
    for row in rows:
        there = kernel.get(row.protocol, {}).get(row.volume_id)
        reason = wrong.get(row.attachment_id, "")
        found.append(
            HostExport(
                attachment_id=row.attachment_id,
                volume_id=row.volume_id,
                backend=row.settings.backend,
                generation=row.generation,
                protocol=row.protocol,
                initiator=row.settings.initiator,
                mode=row.settings.mode,
                target=there.targets.get(row.settings.initiator, "") if there is not None else "",
                connected=_connected(row, there),
                boot_id=row.boot_id,
                state="stale" if not row.wanted else "missing" if reason else "exported",
                reason=failures.get(row.volume_id, "") or reason,
            )
        )
    return found


def _connected(row: Row, there: Offered | None) -> bool | None:
    if row.protocol == IN_CLUSTER:
        return None
    if there is None:
        return False
    return None if there.connected is None else row.settings.initiator in there.connected
