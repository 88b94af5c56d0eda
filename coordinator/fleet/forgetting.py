"""Finished jobs that a host still keeps because their acknowledgement was lost, with a coordinator or on the wire."""

from __future__ import annotations

from collections.abc import Iterable

from agent.wire.client import AgentClient
from coordinator.state import operations
from coordinator.state.database import Database


async def forget_finished(db: Database, client: AgentClient, finished: Iterable[str]) -> list[str]:
    """Let the host drop those of its finished jobs whose operations have ended; returns their keys.

    Jobs of an operation that no row knows are left alone: they expire on the host. Raises what the wire raises.
    """
    by_operation = {key: key.split("/", 1)[0] for key in finished}
    if not by_operation:
        return []
    ended = await db.read(lambda conn: operations.ended_among(conn, set(by_operation.values())))
    forgotten = [key for key, operation in by_operation.items() if operation in ended]
    if forgotten:
        await client.acknowledge(forgotten)
    return forgotten
