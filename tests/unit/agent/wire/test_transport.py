"""How many connections a transport opens, and who waits for whom."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from agent.wire import transport as wire
from agent.wire.tls import COORDINATOR, TlsIdentity, host_role
from agent.wire.transport import HttpTransport
from coordinator.enrolment.ca import Authority, new_authority
from tests.unit.agent.wire.test_tls import identity


class Host:
    """Answers; `/held` when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.connections: set[object] = set()
        self.under_way = self.most = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if request.path == "/held":
                await self.go.wait()
            return web.json_response({})
        finally:
            self.under_way -= 1


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[Host, HttpTransport]]:
    authority = Authority(new_authority())
    host, app = Host(), web.Application()
    app.router.add_route("*", "/{path:.*}", host.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    ours: TlsIdentity = identity(folder / "host", host_role("h"), authority)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_server(ours))
    await site.start()
    port = runner.addresses[0][1]
    client = HttpTransport("127.0.0.1", port, host_role("h"), identity(folder / "us", COORDINATOR, authority))
    try:
        yield host, client
    finally:
        await client.close()
        await runner.cleanup()


def _server(ours: TlsIdentity) -> ssl.SSLContext:
    return ours.server_context()


async def test_many_short_calls_share_a_few_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_PATIENCE_S", 60.0)
    async with served(tmp_path) as (host, client):
        await asyncio.gather(*(client.call("GET", "/x") for _ in range(50)))
        assert (host.most, len(host.connections)) == (1, 1)
        await client.call("GET", "/x")
        assert len(host.connections) == 1


async def test_nobody_waits_for_a_long_call_for_long(tmp_path: Path) -> None:
    """Neither for one that waits for something to happen, nor, for more than a moment, for one that takes its time."""
    async with served(tmp_path) as (host, client):
        held = [asyncio.create_task(client.call("GET", "/held", query={"wait": 30.0}))]
        held += [asyncio.create_task(client.call("POST", "/held")) for _ in range(20)]
        while host.under_way < 21:
            await asyncio.sleep(0)
        await client.call("GET", "/x")
        host.go.set()
        await asyncio.gather(*held)


async def test_who_gives_up_while_waiting_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_PATIENCE_S", 60.0)
    async with served(tmp_path) as (host, client):
        first = asyncio.create_task(client.call("GET", "/held"))
        while not host.under_way:
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(client.call("GET", "/x")) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        host.go.set()
        outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert [outcomes[0], *outcomes[2:]] == [{}] * 3
        await client.rest()
        assert client._pool is None
