"""Certificates are renewed before they end, and both sides rotated under load."""

from __future__ import annotations

import asyncio
import datetime
import re

import pytest

from agent.base.errors import BrickyardError
from agent.base.metrics import registry
from agent.server.identity import Identity
from agent.wire.errors import (
    PeerRefused,
    Undelivered,
)
from agent.wire.tls import host_role
from agent.wire.transport import HttpTransport
from coordinator.enrolment.ca import new_key
from coordinator.enrolment.errors import RenewalRefused
from coordinator.enrolment.renewal import Renewal
from coordinator.state import enrolment as rows
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.tables import enrolment as tables
from tests.integration.enrolment.joined import DAY, Control, Site, call, enrolled, serial_of


async def set_port(site: Site, port: int) -> EnrolledHost:
    host = await site.db.read(lambda conn: rows.host(conn, "host-a"))
    assert host is not None
    host = EnrolledHost(host.name, host.address, port, 1, host.key_sha256, host.enrolled_at)
    await site.db.write(lambda conn: rows.put_host(conn, host))
    return host


async def age_certificate(site: Site, agent: Identity, days: int) -> None:
    """Replace the host's certificate by one on the same key that began `days` ago, in its files and in the rows."""
    from agent.server.keys import load_key
    from coordinator.enrolment.service import certificate_row

    began = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - days * DAY
    issued = site.authority.issue(host_role("host-a"), load_key(agent.tls.files.key).public_key(), now=began)
    await agent.install(issued.chain, site.authority.ca_pem)
    row = certificate_row(issued, "host-a")

    def work(conn: object) -> None:
        conn.execute(tables.certificates.delete())  # type: ignore[attr-defined]
        rows.add_certificate(conn, row)  # type: ignore[arg-type]
        rows.mark_installed(conn, row.serial)  # type: ignore[arg-type]

    await site.db.write(work)


async def test_the_lives_of_certificates_for_all_hosts_at_once(site: Site) -> None:
    agent, other = await enrolled(site), await enrolled(site, "host-b", "other")
    spans = await site.db.read(rows.spans_of_hosts)
    assert {host for host, _ in spans} == {"host-a", "host-b"}
    for host in await site.db.read(rows.hosts):
        one = await site.db.read(
            lambda conn, host=host: rows.current_certificate(conn, host_role(host.name), host.key_sha256)  # type: ignore[misc]
        )
        assert one is not None
        assert spans[host.name, host.key_sha256] == rows.Span(one.not_before, one.not_after)
    await site.db.write(lambda conn: rows.revoke(conn, serial_of(other.tls)))
    assert {host for host, _ in await site.db.read(rows.spans_of_hosts)} == {"host-a"}
    assert agent.name == "host-a"


@pytest.mark.parametrize(("days", "renewed"), [(5, False), (12, True), (45, True)])
async def test_renewal_at_a_third_and_after_the_end_with_the_pinned_key(site: Site, days: int, renewed: bool) -> None:
    agent = await enrolled(site)
    await age_certificate(site, agent, days)
    before = serial_of(agent.tls)
    async with Control(agent) as control:
        await set_port(site, control.port)
        if days > 30:
            with pytest.raises(Undelivered):
                await call(site.identity, control.port)
        assert await Renewal(site.enrolment, site.identity).renew_due() == {}
        assert (serial_of(agent.tls) != before) == renewed
        assert re.search(rb'certificate_days_left{host="host-a"} (29|24)\.', registry.render())
        assert await call(site.identity, control.port) == {"path": "/v1/host"}


async def test_an_expired_certificate_on_another_key_gets_nothing(site: Site) -> None:
    agent = await enrolled(site)
    await age_certificate(site, agent, 45)
    past = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - 45 * DAY
    impostor = site.holder("impostor", host_role("host-a"), now=past)
    for name in ("key", "certificate", "ca"):
        getattr(agent.tls.files, name).write_bytes(getattr(impostor.files, name).read_bytes())
    async with Control(Identity.load(agent.folder)) as control:
        await set_port(site, control.port)
        failed = await Renewal(site.enrolment, site.identity).renew_due()
        assert isinstance(failed["host-a"], Undelivered)
        assert control.reached == 0


def _csr_of_new_key() -> str:
    from agent.server.keys import signing_request

    return signing_request(new_key(), "host-a")


async def test_a_request_for_another_key_and_a_revoked_host_are_not_renewed(site: Site) -> None:
    agent = await enrolled(site)
    renewal = Renewal(site.enrolment, site.identity)
    async with Control(agent) as control:
        host = await set_port(site, control.port)
        agent.csr = _csr_of_new_key  # type: ignore[method-assign]
        with pytest.raises(RenewalRefused):
            await renewal.renew(host)
        await site.db.write(lambda conn: rows.revoke_host(conn, "host-a"))
        with pytest.raises(PeerRefused):
            await renewal.renew(host)
    assert await site.db.write(lambda conn: rows.evict_host(conn, "host-a"))
    assert await site.db.read(rows.hosts) == []


async def test_rotation_of_both_sides_under_load_loses_no_request(site: Site) -> None:
    agent = await enrolled(site)
    async with Control(agent) as control:
        host = await set_port(site, control.port)
        client = HttpTransport("127.0.0.1", control.port, host_role("host-a"), site.identity)
        stop, done, failures = asyncio.Event(), 0, []

        async def load() -> None:
            nonlocal done
            while not stop.is_set():
                try:
                    await client.call("POST", "/v1/jobs", body={"n": done})
                    done += 1
                except BrickyardError as error:
                    failures.append(error)

        workers = [asyncio.create_task(load()) for _ in range(8)]
        renewal = Renewal(site.enrolment, site.identity)
        for _ in range(5):
            at = done
            await renewal.renew(host)
            site.identity.files.certificate.unlink()
            assert await renewal.renew_own()
            assert not await renewal.renew_own()
            while done < at + 50:
                await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*workers)
        assert failures == []
        assert done >= 250
        await client.close()
