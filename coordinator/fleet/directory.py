"""Who can be reached: one client per enrolled host, and news for those who wait for a host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.base.log import get_logger
from agent.wire.client import AgentClient
from agent.wire.tls import TlsIdentity
from coordinator.state.enrolment import EnrolledHost

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class Known:
    """One enrolled host: small, a site has many. `up` while it answers; `mine` where this coordinator watches it.

    What the last polls brought: `have` and `held` as in `agent.wire.results.Report`; `rests` is how many more polls may
    go by without a comparison while nothing on the host changes; `failures` in a row, and when that was last noted
    (monotonic seconds); `asked` is when a poll was sent that was not answered yet.
    """

    host: EnrolledHost
    client: AgentClient
    up: bool = False
    mine: bool = True
    have: str = ""
    held: str = ""
    rests: int = 0
    failures: int = 0
    noted: float = 0.0
    asked: float = 0.0

    def waiting(self) -> float:
        """For how many seconds a poll has been waiting for its answer; 0 when none is."""
        return time.monotonic() - self.asked if self.asked else 0.0


class Directory:
    """The `Agents` that operations talk to. Lives on one event loop."""

    def __init__(self, identity: TlsIdentity) -> None:
        self._identity = identity
        self._known: dict[str, Known] = {}
        self._news = asyncio.Event()
        self.doubt: Callable[[Known], None] = lambda _: None
        """Called when a host should be looked at without delay."""

    def client(self, host_id: str) -> AgentClient | None:
        """The client of an enrolled host; None when it is not enrolled (any more)."""
        known = self._known.get(host_id)
        return known.client if known else None

    def found(self, known: Known) -> None:
        """A poll was answered, and its pools are known."""
        if not known.up:
            known.up = True
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def changed(self) -> None:
        """Wait until a host answers again, or is not enrolled any more."""
        await self._news.wait()

    async def all_up(self, host_ids: frozenset[str]) -> None:
        """Wait until all these hosts are enrolled and answer."""
        while not all((known := self._known.get(host)) is not None and known.up for host in host_ids):
            await self._news.wait()

    def lost(self, host_id: str) -> None:
        """A call failed: the host counts as unreachable until it answers a poll."""
        known = self._known.get(host_id)
        if known is not None:
            known.up = False
            self.doubt(known)

    def look(self, host_id: str) -> None:
        """Ask the host now instead of at its next poll."""
        known = self._known.get(host_id)
        if known is not None:
            self.doubt(known)

    async def reachable(self, host_id: str, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the host answers; False when it did not, or is not enrolled (any more)."""
        deadline = time.monotonic() + timeout
        asked = None
        while (known := self._known.get(host_id)) is not None:
            if known.up:
                return True
            if known.mine and not known.failures and asked is not known:
                asked = known
                self.doubt(known)
            try:
                await asyncio.wait_for(self._news.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return False
        return False

    def all(self) -> list[Known]:
        return list(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

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
                await known.client.close()
        left = self._known.keys() - {host.name for host in enrolled}
        for gone in left:
            await self._known.pop(gone).client.close()
        if left:
            self._tell()
        return fresh

    async def close(self) -> None:
        for known in self._known.values():
            await known.client.close()
        self._known.clear()
