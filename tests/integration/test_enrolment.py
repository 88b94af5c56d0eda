"""Enrolment, roles, revocation, renewal and rotation, over real sockets and real certificates."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from pydantic import SecretStr

from agent.base.errors import BrickyardError, Invalid
from agent.base.metrics import registry
from agent.server.access import require_role
from agent.server.app import make_app
from agent.server.identity import Identity, install_bundle, join
from agent.wire.client import AgentClient
from agent.wire.errors import (
    BadAnswer,
    HostEnrolled,
    IdentityMissing,
    OutcomeUnknown,
    PeerRefused,
    TokenRefused,
    Undelivered,
    WrongCoordinator,
)
from agent.wire.joining import JoinToken
from agent.wire.tls import COORDINATOR, METRICS, TlsFiles, TlsIdentity, host_role
from agent.wire.transport import HttpTransport
from coordinator.enrolment.authority import FileCaStore
from coordinator.enrolment.ca import Authority, key_pem, new_authority, new_key
from coordinator.enrolment.errors import RenewalRefused
from coordinator.enrolment.listener import EnrolmentListener
from coordinator.enrolment.own import own_identity
from coordinator.enrolment.renewal import Renewal
from coordinator.enrolment.service import Enrolment
from coordinator.state import enrolment as rows
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.tables import enrolment as tables
from coordinator.state.tables import metadata

DAY = datetime.timedelta(days=1)
ROUTES = [
    ("GET", "/v1/host"),
    ("GET", "/v1/pools"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/o/s/1"),
    ("DELETE", "/v1/jobs/o/s/1"),
    ("POST", "/v1/identity/csr"),
    ("PUT", "/v1/identity/certificate"),
    ("GET", "/metrics"),
]


@dataclass
class Site:
    folder: Path
    db: Database
    authority: Authority
    identity: TlsIdentity
    enrolment: Enrolment
    port: int

    async def token(self, **options: object) -> str:
        return (await self.enrolment.token("127.0.0.1", self.port, **options)).line()  # type: ignore[arg-type]

    def holder(self, name: str, role: str, authority: Authority | None = None, **options: object) -> TlsIdentity:
        """Files with a certificate of any role, by any CA, with any dates; trusts the site's CA."""
        folder = self.folder / "holders" / name
        folder.mkdir(parents=True)
        files, key = TlsFiles.in_folder(folder), new_key()
        issued = (authority or self.authority).issue(role, key.public_key(), **options)  # type: ignore[arg-type]
        files.key.write_bytes(key_pem(key))
        files.certificate.write_text(issued.chain)
        files.ca.write_text(self.authority.ca_pem)
        return TlsIdentity(files)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    db = Database.sqlite(tmp_path / "state.db")
    metadata.create_all(db.engine, tables=[tables.join_tokens, tables.enrolled_hosts, tables.certificates])
    authority = Authority.open(FileCaStore(tmp_path / "ca"))
    identity = own_identity(tmp_path / "tls", authority)
    enrolment = Enrolment(authority, db)
    listener = EnrolmentListener(enrolment, identity, "127.0.0.1")
    await listener.start()
    yield Site(tmp_path, db, authority, identity, enrolment, listener.port)
    await listener.close()
    db.close()


class Control:
    """A control port with the shipped access rule and identity calls; counts what reaches a handler."""

    def __init__(self, identity: Identity) -> None:
        self.identity, self.reached, self.port = identity, 0, 0

    async def __aenter__(self) -> Control:
        app = web.Application(middlewares=[require_role(self.identity.denied)])
        app.router.add_post("/v1/identity/csr", self.csr)
        app.router.add_put("/v1/identity/certificate", self.certificate)
        app.router.add_put("/v1/identity/denied", self.deny)
        app.router.add_get("/slow", self.slow)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_route("*", "/{tail:.*}", self.any)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.identity.tls.server_context()).start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    async def any(self, request: web.Request) -> web.Response:
        self.reached += 1
        return web.json_response({"path": request.path})

    async def metrics(self, _request: web.Request) -> web.Response:
        self.reached += 1
        return web.Response(text="up 1\n")

    async def slow(self, _request: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({})

    async def csr(self, _request: web.Request) -> web.Response:
        self.reached += 1
        return web.json_response({"csr": self.identity.csr()})

    async def certificate(self, request: web.Request) -> web.Response:
        self.reached += 1
        body = json.loads(await request.read() or b"{}")
        if body:
            await self.identity.install(body["certificate"], body["ca"])
        return web.json_response({})

    async def deny(self, request: web.Request) -> web.Response:
        self.identity.denied.replace((await request.json())["serials"])
        return web.json_response({})


async def enrolled(site: Site, name: str = "host-a", folder: str = "agent") -> Identity:
    return await join(site.folder / folder, await site.token(), name, control_port=9001, data_port=9002)


def serial_of(identity: TlsIdentity) -> str:
    from cryptography import x509

    return f"{x509.load_pem_x509_certificate(identity.files.certificate.read_bytes()).serial_number:x}"


async def call(
    site_identity: TlsIdentity, port: int, method: str = "GET", path: str = "/v1/host", role: str = ""
) -> object:
    transport = HttpTransport("127.0.0.1", port, role or host_role("host-a"), site_identity)
    try:
        return await transport.call(method, path, timeout=30)
    finally:
        await transport.close()


async def test_a_host_joins_and_answers_its_coordinator(site: Site) -> None:
    identity = await enrolled(site)
    assert identity.name == "host-a"
    for name in ("key.pem", "certificate.pem", "ca.pem"):
        assert (identity.folder / name).stat().st_mode & 0o777 == 0o600
    host = await site.db.read(lambda conn: rows.host(conn, "host-a"))
    assert host is not None
    assert (host.address, host.control_port, host.data_port) == ("127.0.0.1", 9001, 9002)
    async with Control(Identity.load(identity.folder)) as control:
        for method, path in ROUTES:
            await call(site.identity, control.port, method, path)
        assert control.reached == len(ROUTES)


async def test_the_same_token_twice_is_one_enrolment_with_one_answer(site: Site) -> None:
    token = await site.token()
    first = await join(site.folder / "agent", token, "host-a", control_port=1, data_port=2)
    serial = serial_of(first.tls)
    (first.folder / "certificate.pem").unlink()  # the answer was lost
    with pytest.raises(IdentityMissing):
        Identity.load(first.folder)
    again = await join(site.folder / "agent", token, "host-a", control_port=1, data_port=2)
    assert serial_of(again.tls) == serial
    with pytest.raises(TokenRefused):
        await join(site.folder / "thief", token, "host-a", control_port=1, data_port=2)
    with pytest.raises(TokenRefused):
        await join(site.folder / "thief", token, "host-b", control_port=1, data_port=2)


async def test_two_at_once_with_one_token_one_wins(site: Site) -> None:
    token = await site.token()
    results = await asyncio.gather(
        *(join(site.folder / f"a{n}", token, "host-a", control_port=1, data_port=2) for n in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Identity) for result in results) == 1
    assert sum(isinstance(result, TokenRefused) for result in results) == 3


async def test_expired_bound_and_unknown_tokens(site: Site) -> None:
    for token in (await site.token(lifetime_s=-1), await site.token(host="host-z")):
        with pytest.raises(TokenRefused):
            await join(site.folder / "agent", token, "host-a", control_port=1, data_port=2)
    good = JoinToken.parse(await site.token())
    wrong = good.model_copy(update={"secret": SecretStr("x" * 43)})
    with pytest.raises(TokenRefused):
        await join(site.folder / "agent", wrong.line(), "host-a", control_port=1, data_port=2)


async def test_a_name_is_taken_over_only_with_a_token_bound_to_it(site: Site) -> None:
    old = await enrolled(site)
    with pytest.raises(HostEnrolled):
        await join(site.folder / "new", await site.token(), "host-a", control_port=1, data_port=2)
    await join(site.folder / "new", await site.token(host="host-a"), "host-a", control_port=1, data_port=2)
    assert await site.db.read(rows.denied_serials) == [serial_of(old.tls)]


async def test_a_tampered_fingerprint_sends_nothing(site: Site) -> None:
    token = JoinToken.parse(await site.token())
    forged = token.model_copy(update={"ca_sha256": "0" * 64})
    with pytest.raises(WrongCoordinator):
        await join(site.folder / "agent", forged.line(), "host-a", control_port=1, data_port=2)
    row = await site.db.read(rows.list_tokens)
    assert row[0]["used_at"] is None


async def test_a_stranger_that_shows_the_right_ca_gets_no_secret(site: Site) -> None:
    """It can copy the CA's certificate but has no key that the CA signed for the coordinator."""
    stranger = site.holder("stranger", COORDINATOR, Authority(new_authority()))
    seen: list[str] = []

    async def ca(_request: web.Request) -> web.Response:
        return web.Response(text=site.authority.ca_pem)

    async def enrol(request: web.Request) -> web.Response:
        seen.append(await request.text())
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/ca", ca)
    app.router.add_post("/enrol", enrol)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=stranger.open_context()).start()
    token = (await site.enrolment.token("127.0.0.1", runner.addresses[0][1])).line()
    with pytest.raises((WrongCoordinator, Undelivered)):
        await join(site.folder / "agent", token, "host-a", control_port=1, data_port=2)
    assert seen == []
    await runner.cleanup()


async def test_bundle(site: Site) -> None:
    path = site.folder / "host-b.bundle"
    path.write_text((await site.enrolment.bundle("host-b", "127.0.0.1", 1, 2)).text())
    identity = install_bundle(site.folder / "agent", path)
    async with Control(identity) as control:
        assert await call(site.identity, control.port, role=host_role("host-b")) == {"path": "/v1/host"}


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


def _csr_of_new_key() -> str:
    from agent.server.keys import signing_request

    return signing_request(new_key(), "host-a")


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
