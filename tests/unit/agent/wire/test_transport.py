"""How many connections a transport opens, and who waits for whom."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.wire import transport
from agent.wire.errors import Undelivered
from agent.wire.tls import COORDINATOR, TlsIdentity, host_role
from agent.wire.transport import HttpTransport, _Pool
from coordinator.enrolment.ca import Authority, new_authority
from tests.unit.agent.wire.test_tls import identity


class Host:
    """Answers; `/held` when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.connections: set[Any] = set()
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


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is let when others are done, however slow the machine is."""
    monkeypatch.setattr(transport, "_PATIENCE_S", 60.0)


@pytest.mark.usefixtures("patient")
async def test_many_short_calls_share_a_few_connections(tmp_path: Path) -> None:
    async with served(tmp_path) as (host, client):
        await client.call("GET", "/x")
        await asyncio.gather(*(client.call("GET", "/x") for _ in range(200)))
        assert len(host.connections) < 100
        before = len(host.connections)
        for _ in range(5):
            await client.call("GET", "/x")
        assert len(host.connections) == before


async def test_long_calls_get_a_connection_each(tmp_path: Path) -> None:
    async with served(tmp_path) as (host, client):
        held = [asyncio.create_task(client.call("POST", "/held")) for _ in range(40)]
        while host.under_way < 40:
            await asyncio.sleep(0)
        await client.call("GET", "/x")
        host.go.set()
        await asyncio.gather(*held)
        assert client._pool is not None
        assert (client._pool.opening, len(client._pool.waiting)) == (0, 0)


async def test_who_gives_up_while_waiting_leaves_no_trace(tmp_path: Path) -> None:
    async with served(tmp_path) as (host, client):
        tasks = [asyncio.create_task(client.call("GET", "/held")) for _ in range(12)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        while host.under_way < 8:
            await asyncio.sleep(0)
        host.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in outcomes] == [n % 3 == 0 for n in range(12)]
        assert client._pool is not None
        assert (client._pool.opening, client._pool.calls) == (0, 0)
        await client.rest()
        assert client._pool is None


async def test_a_host_that_is_away_is_known_to_be_for_all_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as (host, client):
        client.port = 9  # nobody listens
        outcomes = await asyncio.gather(*(client.call("GET", "/x") for _ in range(20)), return_exceptions=True)
        assert {type(each) for each in outcomes} == {Undelivered}
        assert client._pool is not None
        assert (client._pool.opening, len(client._pool.waiting), host.most) == (0, 0, 0)


async def _waits(pool: _Pool) -> asyncio.Task[bool]:
    task = asyncio.create_task(pool.begin())
    await asyncio.sleep(0)
    return task


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("given", ["a connection", "leave to open one"])
async def test_who_gives_up_at_the_moment_of_his_turn_hands_it_on(tmp_path: Path, given: str) -> None:
    async with served(tmp_path) as (_, client):
        await client.call("GET", "/x")
        pool = client._pool
        assert pool is not None
        assert not await pool.begin()
        assert await pool.begin()
        first, second = await _waits(pool), await _waits(pool)
        if given == "a connection":
            pool.end(opening=False)
        else:
            pool.opened()
        first.cancel()
        async with asyncio.timeout(60):
            assert await second == (given != "a connection")
        with pytest.raises(asyncio.CancelledError):
            await first
        assert pool.opening == 1


@pytest.mark.usefixtures("patient")
async def test_who_finds_the_connection_that_was_handed_to_another_leaves_the_new_one_to_him(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        await client.call("GET", "/x")
        pool = client._pool
        assert pool is not None
        # One call is about to take the idle connection, and many wait for one that is being opened.
        assert not await pool.begin()
        pool.opening = 1
        waiting = [await _waits(pool) for _ in range(20)]
        pool.opening = 0
        await client.call("GET", "/x")
        await asyncio.sleep(0)
        assert sum(task.done() for task in waiting) <= 2
        assert pool.opening <= 1
        for task in waiting:
            task.cancel()


@pytest.mark.usefixtures("patient")
async def test_connections_that_the_host_has_closed_are_not_reckoned_with(tmp_path: Path) -> None:
    async with served(tmp_path) as (host, client):
        held = [asyncio.create_task(client.call("POST", "/held")) for _ in range(40)]
        while host.under_way < 40:
            await asyncio.sleep(0)
        host.go.set()
        await asyncio.gather(*held)
        before = host.connections
        host.connections = set()
        for each in before:
            each.close()
        await asyncio.sleep(0.5)
        await asyncio.gather(*(client.call("GET", "/x") for _ in range(40)))
        assert len(host.connections) < 20
        assert client._pool is not None
        assert (client._pool.opening, client._pool.open) == (0, len(host.connections))
