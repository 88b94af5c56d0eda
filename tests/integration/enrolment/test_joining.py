"""A host joins by a token, once."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from pydantic import SecretStr

from agent.server.identity import Identity, install_bundle, join
from agent.wire.errors import (
    HostEnrolled,
    IdentityMissing,
    TokenRefused,
    Undelivered,
    WrongCoordinator,
)
from agent.wire.joining import JoinToken
from agent.wire.tls import COORDINATOR, host_role
from coordinator.enrolment.ca import Authority, new_authority
from coordinator.state import enrolment as rows
from tests.integration.enrolment.joined import ROUTES, Control, Site, call, enrolled, serial_of


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
