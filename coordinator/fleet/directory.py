"""Who can be reached: one client per enrolled host, and an event for those who wait for a host."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from agent.base.log import get_logger
from agent.wire.client import AgentClient
from agent.wire.tls import TlsIdentity
from coordinator.state.enrolment import EnrolledHost

log = get_logger(__name__)


@dataclass(slots=True)
class Known:
    """One enrolled host. `up` is set while it answers; `doubted` asks the poller to look at once."""

    host: EnrolledHost
    client: AgentClient
    up: asyncio.Event = field(default_factory=asyncio.Event)
    doubted: asyncio.Event = field(default_factory=asyncio.Event)


class Directory:
    """The `Agents` that operations talk to. Lives on one event loop."""

    def __init__(self, identity: TlsIdentity) -> None:
        self._identity = identity
        self._known: dict[str, Known] = {}
        self._news = asyncio.Event()

    def client(self, host_id: str) -> AgentClient | None:
        """The client of an enrolled host; None when it is not enrolled (any more)."""
        known = self._known.get(host_id)
        return known.client if known else None

    def found(self, known: Known) -> None:
        """A poll was answered, and its pools are known."""
        known.up.set()
        self._news.set()
        self._news = asyncio.Event()

    async def all_up(self, host_ids: frozenset[str]) -> None:
        """Wait until all these hosts are enrolled and answer."""
        while not host_ids <= {known.host.name for known in self._known.values() if known.up.is_set()}:
            await self._news.wait()

    def lost(self, host_id: str) -> None:
        """A call failed: the host counts as unreachable until it answers a poll."""
        known = self._known.get(host_id)
        if known is not None:
            known.up.clear()
            known.doubted.set()

    async def reachable(self, host_id: str, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the host answers; False when it did not, or is not enrolled (any more)."""
        deadline = time.monotonic() + timeout
        while (known := self._known.get(host_id)) is not None:
            try:
                await asyncio.wait_for(known.up.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return False
            if self._known.get(host_id) is known:
                return True
        return False

    def all(self) -> list[Known]:
        return list(self._known.values())

    def get(self, host_id: str) -> Known | None:
        return self._known.get(host_id)

    async def sync(self, enrolled: list[EnrolledHost]) -> list[Known]:
        """Follow the table of enrolled hosts; returns the entries that are new or have moved."""
        fresh: list[Known] = []
        for host in enrolled:
            known = self._known.get(host.name)
            if known is not None and known.host == host:
                continue
            client = AgentClient.https(host.name, host.address, host.control_port, self._identity)
            self._known[host.name] = Known(host, client)
            fresh.append(self._known[host.name])
            if known is not None:
                await _retire(known)
        for gone in self._known.keys() - {host.name for host in enrolled}:
            await _retire(self._known.pop(gone))
        return fresh

    async def close(self) -> None:
        for known in self._known.values():
            await known.client.close()
        self._known.clear()


async def _retire(known: Known) -> None:
    """Wake those who wait for an entry that nobody polls any more; they look for the one in its place."""
    known.up.set()
    await known.client.close()
