"""Renewing hosts' certificates by calling the agents, at a third of their life; they call nobody."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

from agent.base.errors import BrickyardError
from agent.base.metrics import registry
from agent.wire.client import AgentClient
from agent.wire.errors import PeerRefused
from agent.wire.tls import COORDINATOR, TlsIdentity, host_role
from agent.wire.transport import HttpTransport
from coordinator.enrolment.errors import RenewalRefused
from coordinator.enrolment.own import ensure_role
from coordinator.enrolment.service import Enrolment
from coordinator.state import enrolment as rows
from coordinator.state.enrolment import CertificateRow, EnrolledHost
from coordinator.state.tables.columns import utcnow

_AT_ONCE = 8
_DAY = datetime.timedelta(days=1)
_days_left = registry.gauge(
    "brickyard_host_certificate_days_left", "Days until a host's certificate runs out, unless renewed", host=4096
)


class Renewal:
    """One round at a time: `await renew_due()` renews what is due and returns what failed, by host."""

    def __init__(self, enrolment: Enrolment, identity: TlsIdentity) -> None:
        self._enrolment, self._identity = enrolment, identity
        self._given: dict[str, tuple[str, ...]] = {}
        self._denied: tuple[str, ...] = ()

    async def renew_due(self, mine: Callable[[str], bool] = lambda _: True) -> dict[str, BrickyardError]:
        """Renew every host (of those that are `mine`) whose certificate has passed a third of its life."""
        hosts = [host for host in await self._enrolment.read(rows.hosts) if mine(host.name)]
        spans = await self._enrolment.read(rows.spans_of_hosts)
        gate = asyncio.Semaphore(_AT_ONCE)
        failed: dict[str, BrickyardError] = {}
        ends = {host.name: span.not_after for host in hosts if (span := spans.get((host.name, host.key_sha256)))}

        async def one(host: EnrolledHost) -> None:
            async with gate:
                try:
                    ends[host.name] = (await self.renew(host)).not_after
                except BrickyardError as error:
                    failed[host.name] = error

        now = utcnow()
        due = [host for host in hosts if (span := spans.get((host.name, host.key_sha256))) is None or span.due(now)]
        await asyncio.gather(*(one(host) for host in due))
        _days_left.replace([({"host": name}, (end - utcnow()) / _DAY) for name, end in ends.items()])
        return failed

    async def follow_denied(self) -> None:
        """Read the deny list, and refuse what is on it here."""
        self._denied = tuple(await self._enrolment.read(rows.denied_serials))
        self._identity.deny(self._denied)

    async def give_denied(self, host: str, client: AgentClient) -> None:
        """Give the list, as it was last read, to this host when it has not had it yet; goes with each poll.

        A list that became empty need not travel: what was on it has run out by itself.
        """
        serials = self._denied
        if self._given.get(host, ()) != serials:
            await client.put_denied(serials)
            self._given[host] = serials

    def forget(self, host: str) -> None:
        """It is not enrolled any more, or anew: who answers now may never have had the list."""
        self._given.pop(host, None)

    async def renew_own(self) -> bool:
        """Renew the coordinator's own certificate when it is due, without losing a call; True when it was."""
        folder = self._identity.files.key.parent
        issued = await asyncio.to_thread(ensure_role, folder, self._enrolment.authority, COORDINATOR)
        if issued is None:
            return False
        self._identity.reload()
        return True

    async def renew(self, host: EnrolledHost) -> CertificateRow:
        """csr, sign, put. A host whose certificate ran out is recognised by its pinned key, for this alone.

        Raises `PeerRefused` for a revoked host, `RenewalRefused` for another key, or what the call raises.
        """
        current = await self._current(host)
        expired = current.not_after <= utcnow()
        context = self._identity.renewal_context(host.key_sha256) if expired else None
        transport = HttpTransport(
            host.address, host.control_port, host_role(host.name), self._identity, connections=1, context=context
        )
        client = AgentClient(transport, host.name)
        try:
            row = await self._enrolment.sign_for(host, await client.csr())
            if row is None:
                raise RenewalRefused(host=host.name)
            await client.put_certificate(row.chain, self._enrolment.authority.ca_pem)
        finally:
            await client.close()
        await self._enrolment.installed(row.serial)
        return row

    async def _current(self, host: EnrolledHost) -> CertificateRow:
        role = host_role(host.name)
        current = await self._enrolment.read(lambda conn: rows.current_certificate(conn, role, host.key_sha256))
        if current is None:
            raise PeerRefused(reason=f"that of {role} is revoked; a new join token is needed")
        return current
