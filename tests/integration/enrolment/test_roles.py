"""Who may call what, by the role in his certificate."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from typing import Any, cast

import pytest
from aiohttp import web

from agent.base.errors import Invalid
from agent.server.app import make_app
from agent.wire.errors import (
    BadAnswer,
    OutcomeUnknown,
    PeerRefused,
    Undelivered,
)
from agent.wire.tls import COORDINATOR, METRICS, TlsFiles, TlsIdentity, host_role
from agent.wire.transport import HttpTransport
from coordinator.enrolment.ca import Authority, new_authority
from tests.integration.enrolment.joined import DAY, ROUTES, Control, Site, call, enrolled, serial_of


@pytest.mark.parametrize(
    "kind", ["expired", "not-yet", "foreign-ca", "missing", "host", "metrics", "odd-role", "revoked"]
)
async def test_no_other_certificate_is_let_in_on_any_route(site: Site, kind: str) -> None:
    agent = await enrolled(site)
    past, future = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - 40 * DAY, None
    future = past + 45 * DAY
    makers = {
        "expired": lambda: site.holder(kind, COORDINATOR, now=past),
        "not-yet": lambda: site.holder(kind, COORDINATOR, now=future),
        "foreign-ca": lambda: site.holder(kind, COORDINATOR, Authority(new_authority())),
        "missing": lambda: site.holder(kind, COORDINATOR),
        "host": lambda: site.holder(kind, host_role("host-b")),
        "metrics": lambda: site.holder(kind, METRICS),
        "odd-role": lambda: site.holder(kind, "coordinator:x"),
        "revoked": lambda: site.holder(kind, COORDINATOR),
    }
    caller = makers[kind]()
    if kind == "missing":
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.load_verify_locations(cadata=site.authority.ca_pem)
        caller._client = bare  # type: ignore[assignment]
    if kind == "revoked":
        agent.denied.replace([serial_of(caller)])
    # Nothing stands behind the routes: a call that came through would end in a defect, not in a refusal.
    app = make_app(cast(Any, None), cast(Any, None), agent)
    routes = [
        (route.method, resource.canonical.format(operation="o", step="s", attempt="1"))
        for resource in app.router.resources()
        for route in resource
    ]
    assert set(ROUTES) <= set(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=agent.tls.server_context()).start()
    port = runner.addresses[0][1]
    for method, path in [*routes, ("GET", "/nowhere"), ("POST", "/metrics")]:
        refused = (PeerRefused, OutcomeUnknown, Undelivered, *((BadAnswer,) if method == "HEAD" else ()))
        if kind == "metrics" and path == "/metrics":
            continue
        with pytest.raises(refused):
            await call(caller, port, method, path)
    await runner.cleanup()


@pytest.mark.parametrize("kind", ["wrong-host", "coordinator", "expired", "foreign-ca", "revoked"])
async def test_a_coordinator_accepts_for_a_host_only_its_certificate(site: Site, kind: str) -> None:
    past = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - 40 * DAY
    server = {
        "wrong-host": lambda: site.holder(kind, host_role("host-b")),
        "coordinator": lambda: site.holder(kind, COORDINATOR),
        "expired": lambda: site.holder(kind, host_role("host-a"), now=past),
        "foreign-ca": lambda: site.holder(kind, host_role("host-a"), Authority(new_authority())),
        "revoked": lambda: site.holder(kind, host_role("host-a")),
    }[kind]()
    if kind == "revoked":
        site.identity.denied = frozenset({serial_of(server)})
    received = bytearray()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read(100))
        writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server.server_context())
    with pytest.raises(Undelivered):
        await call(site.identity, listener.sockets[0].getsockname()[1], "POST", "/v1/jobs")
    assert received == b""
    listener.close()


async def test_a_metrics_certificate_reads_metrics_alone(site: Site) -> None:
    agent = await enrolled(site)
    bundle = await site.enrolment.metrics_bundle("prometheus")
    files = TlsFiles.in_folder(site.folder)
    files.key.write_text(bundle.key.get_secret_value())
    files.certificate.write_text(bundle.certificate)
    files.ca.write_text(bundle.ca)
    async with Control(agent) as control:
        assert await call(TlsIdentity(files), control.port, path="/metrics") == "up 1\n"
        with pytest.raises(PeerRefused):
            await call(TlsIdentity(files), control.port)


async def test_delivery_is_told_apart(site: Site) -> None:
    agent = await enrolled(site)
    async with Control(agent) as control:
        port = control.port
        transport = HttpTransport("127.0.0.1", port, host_role("host-a"), site.identity)
        with pytest.raises(OutcomeUnknown):
            await transport.call("GET", "/slow", timeout=0.1)
        assert await transport.call("POST", "/v1/jobs", body={}) == {"path": "/v1/jobs"}
    with pytest.raises((Undelivered, OutcomeUnknown)):
        await transport.call("POST", "/v1/jobs", body={})
    with pytest.raises(Undelivered):
        await transport.call("POST", "/v1/jobs", body={})
    await transport.close()


async def test_a_transport_at_rest_has_no_connection_and_serves_again(site: Site) -> None:
    agent = await enrolled(site)
    async with Control(agent) as control:
        transport = HttpTransport("127.0.0.1", control.port, host_role("host-a"), site.identity)
        assert control.runner.server is not None
        await transport.call("GET", "/v1/host")
        assert len(control.runner.server.connections) == 1
        await transport.rest()
        async with asyncio.timeout(60):
            while control.runner.server.connections:
                await asyncio.sleep(0.01)
        slow = asyncio.create_task(transport.call("GET", "/slow"))
        async with asyncio.timeout(60):
            while not control.runner.server.connections:
                await asyncio.sleep(0.01)
        await transport.rest()
        assert await slow == {}, "a call under way is not disturbed"
        await transport.close()


async def test_an_agent_refuses_a_certificate_that_is_not_its_own(site: Site) -> None:
    agent = await enrolled(site)
    other = await enrolled(site, "host-b", "other")
    before = agent.tls.files.certificate.read_bytes()
    from agent.server.keys import load_key

    key = load_key(agent.tls.files.key).public_key()
    foreign = Authority(new_authority())
    for chain, ca in (
        (other.tls.files.certificate.read_text(), site.authority.ca_pem),
        (site.authority.issue(host_role("host-b"), key).chain, site.authority.ca_pem),
        (site.authority.issue(COORDINATOR, key).chain, site.authority.ca_pem),
        (foreign.issue(host_role("host-a"), key).chain, site.authority.ca_pem),
        ("garbage", site.authority.ca_pem),
    ):
        with pytest.raises(Invalid):
            await agent.install(chain, ca)
    assert agent.tls.files.certificate.read_bytes() == before
