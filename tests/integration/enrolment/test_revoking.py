"""A certificate that is taken back, also where a connection stands."""

from __future__ import annotations

import pytest

from agent.base.errors import Invalid
from agent.server.identity import Identity
from agent.wire.client import AgentClient
from agent.wire.errors import (
    PeerRefused,
    Undelivered,
)
from agent.wire.tls import host_role
from agent.wire.transport import HttpTransport
from coordinator.enrolment.renewal import Renewal
from coordinator.state import enrolment as rows
from tests.integration.enrolment.joined import Control, Site, enrolled, serial_of


async def test_denying_a_host_ends_the_connections_that_stand(site: Site) -> None:
    agent = await enrolled(site)
    async with Control(agent) as control:
        transport = HttpTransport("127.0.0.1", control.port, host_role("host-a"), site.identity)
        await transport.call("GET", "/v1/host")
        await site.db.write(lambda conn: rows.revoke(conn, serial_of(agent.tls)))
        site.identity.deny(await site.db.read(rows.denied_serials))
        with pytest.raises(Undelivered, match="revoked"):
            await transport.call("GET", "/v1/host")
        await transport.close()


async def test_revocation_reaches_connections_that_stand(site: Site) -> None:
    agent = await enrolled(site)
    async with Control(agent) as control:
        client = AgentClient.https("host-a", "127.0.0.1", control.port, site.identity)
        await client.put_denied(["abc"])
        await client.put_denied([serial_of(site.identity)])
        with pytest.raises(PeerRefused):
            await client.put_denied([])
        assert serial_of(site.identity) in Identity.load(agent.folder).denied
        with pytest.raises(Invalid):
            agent.denied.replace(["../x"])
        await client.close()


async def test_the_deny_list_reaches_hosts_and_the_coordinator_itself(site: Site) -> None:
    agent, other = await enrolled(site), await enrolled(site, "host-b", "other")
    renewal = Renewal(site.enrolment, site.identity)
    async with Control(agent) as control:
        client = AgentClient.https("host-a", "127.0.0.1", control.port, site.identity)
        await renewal.follow_denied()
        await renewal.give_denied("host-a", client)
        assert serial_of(other.tls) not in agent.denied
        await site.db.write(lambda conn: rows.evict_host(conn, "host-b"))
        for _ in range(2):
            await renewal.follow_denied()
            await renewal.give_denied("host-a", client)
        assert serial_of(other.tls) in agent.denied
        assert serial_of(other.tls) in site.identity.denied
        await client.close()
