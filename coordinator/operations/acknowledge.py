"""Telling hosts, in batches and behind the scenes, which finished jobs they may forget."""

from __future__ import annotations

import asyncio

from agent.base.log import get_logger
from coordinator.operations.jobs import Agents

log = get_logger(__name__)
_GATHER_S = 0.2


class Acknowledger:
    """A lost acknowledgement costs a row on the host until it expires there; it is never waited for."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._due: dict[str, list[str]] = {}
        self._wake = asyncio.Event()

    def add(self, jobs: list[tuple[str, str]]) -> None:
        for host_id, key in jobs:
            self._due.setdefault(host_id, []).append(key)
        if jobs:
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER_S)
            await self.flush()

    async def flush(self) -> None:
        due, self._due = self._due, {}
        self._wake.clear()
        for host_id, keys in due.items():
            client = self._agents.client(host_id)
            if client is None:
                continue
            try:
                await client.acknowledge(keys)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next batch must be sent
                log.info("acknowledgement lost", host=host_id, jobs=len(keys), reason=str(error))
