"""Telling hosts, in batches and behind the scenes, which finished jobs they may forget."""

from __future__ import annotations

import asyncio
from collections import Counter

from agent.base.log import get_logger
from coordinator.operations.jobs import Agents

log = get_logger(__name__)
_GATHER_S = 0.2
_SLOWEST_S = 3.0
_TRIES = 12


class Acknowledger:
    """A lost acknowledgement is sent again for about half a minute; nobody waits for it.

    What a host has not heard by then it is told when it is polled next (`fleet.forgetting`).
    """

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._due: dict[str, list[str]] = {}
        self._failed: Counter[str] = Counter()
        self._wake = asyncio.Event()

    def add(self, jobs: list[tuple[str, str]]) -> None:
        for host_id, key in jobs:
            self._due.setdefault(host_id, []).append(key)
        if jobs:
            self._wake.set()

    async def run(self) -> None:
        pause_s = _GATHER_S
        while True:
            await self._wake.wait()
            await asyncio.sleep(pause_s)
            pause_s = _GATHER_S if await self.flush() else min(_SLOWEST_S, pause_s * 2)

    async def flush(self) -> bool:
        """Whether every host has heard; what one has not is due again."""
        due, self._due = self._due, {}
        self._wake.clear()
        heard = await asyncio.gather(*(self._tell(host_id, keys) for host_id, keys in due.items()))
        return all(heard)

    async def _tell(self, host_id: str, keys: list[str]) -> bool:
        client = self._agents.client(host_id)
        if client is None:
            return True
        try:
            await client.acknowledge(keys)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch must be sent
            log.info("acknowledgement lost", host=host_id, jobs=len(keys), reason=str(error))
            self._failed[host_id] += 1
            if self._failed[host_id] < _TRIES:
                self.add([(host_id, key) for key in keys])
                return False
        del self._failed[host_id]
        return True
