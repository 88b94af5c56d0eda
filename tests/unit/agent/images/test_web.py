"""Fetching over real connections: resumed by range, bounded, never sent on to another server."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from agent.base.errors import BrickyardError
from agent.images.web import Origin, Rules, download

DATA = bytes(range(256)) * 40_000
RULES = Rules((ipaddress.ip_network("127.0.0.0/8"),), max_bytes=1 << 30, patience_s=0.3)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.memfd_create("image")
    yield made
    os.close(made)


def held(fd: int) -> bytes:
    return os.pread(fd, 1 << 27, 0)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/image"
    finally:
        await runner.cleanup()


def code_of(caught: pytest.ExceptionInfo[BrickyardError]) -> str:
    return caught.value.code


async def test_whole(fd: int) -> None:
    told: list[int] = []

    async def give(request: web.Request) -> web.Response:
        assert "X-Auth-Token" not in request.headers
        return web.Response(body=DATA)

    async with serving(give) as url:
        assert await download(Origin((url,)), fd, RULES, told.append) == len(DATA)
    assert held(fd) == DATA
    assert told[-1] == len(DATA)


class Breaking:
    """Ends the connection after each 3 MiB; `tag` tells the readers that the bytes are the same."""

    def __init__(self, tag: str | None = '"a"', *, ranges: bool = True) -> None:
        self.tag, self.ranges, self.starts, self.left = tag, ranges, list[int](), 2

    async def give(self, request: web.Request) -> web.StreamResponse:
        wanted = request.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        self.starts.append(start)
        answer = web.StreamResponse(status=206 if start else 200)
        if start:
            answer.headers["Content-Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        if self.tag:
            answer.headers["ETag"] = self.tag
        answer.content_length = len(DATA) - start
        await answer.prepare(request)
        if self.left > 0:
            self.left -= 1
            await answer.write(DATA[start : start + (3 << 20)])
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.close()
            return answer
        await answer.write(DATA[start:])
        return answer


async def test_taken_up_where_it_broke(fd: int) -> None:
    for giver, fixed, resumed in (
        (Breaking(), False, True),
        (Breaking(None), True, True),
        (Breaking(None), False, False),
        (Breaking('W/"a"'), False, False),
        (Breaking(ranges=False), False, False),
    ):
        os.ftruncate(fd, 0)
        async with serving(giver.give) as url:
            rules = replace(RULES, patience_s=30)
            assert await download(Origin((url,), fixed=fixed), fd, rules, lambda _: None) == len(DATA)
        assert held(fd) == DATA
        assert (giver.starts[-1] > 0) == resumed, giver.starts


async def test_a_server_that_stays_away(fd: int) -> None:
    async with serving(Breaking().give) as url:
        pass
    with pytest.raises(BrickyardError) as caught:
        await download(Origin((url,)), fd, RULES, lambda _: None)
    assert code_of(caught) == "image.source-away"


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "image.source-denied"), (403, "image.source-denied"), (404, "image.source-gone"), (410, "image.source-gone"),
     (204, "image.source-gone"), (500, "image.source-away"), (416, "image.source-away")],
)  # fmt: skip
async def test_refusals(fd: int, status: int, code: str) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(refuse) as url:
        with pytest.raises(BrickyardError) as caught:
            await download(Origin((url + "?signature=canary",)), fd, RULES, lambda _: None)
    assert code_of(caught) == code
    assert "canary" not in f"{caught.value} {caught.value.context}"


async def test_what_only_the_owner_should_know_is_not_told(fd: int) -> None:
    """A server that talks nonsense is told of without path and query, which may hold a signature."""

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BrickyardError) as caught:
            await download(Origin((f"http://127.0.0.1:{port}/private?sig=hunter2",)), fd, RULES, lambda _: None)
    assert (code_of(caught), "hunter2" in str(caught.value), "private" in str(caught.value)) == (
        "image.source-away", False, False)  # fmt: skip


async def test_the_next_address_is_tried(fd: int) -> None:
    async def one(request: web.Request) -> web.Response:
        return web.Response(status=404) if request.path == "/image" else web.Response(body=DATA)

    async with serving(one) as url:
        assert await download(Origin((url, url + "2")), fd, RULES, lambda _: None) == len(DATA)


async def test_redirects(fd: int) -> None:
    async def sent_on(request: web.Request) -> web.StreamResponse:
        if request.path == "/image":
            return web.Response(status=302, headers={"Location": "/there"})
        if request.path == "/loop":
            return web.Response(status=302, headers={"Location": "/loop"})
        if request.path == "/away":
            return web.Response(status=302, headers={"Location": "http://127.0.0.2:1/"})
        if request.path == "/file":
            return web.Response(status=302, headers={"Location": "file:///etc/shadow"})
        return web.Response(body=DATA)

    async with serving(sent_on) as url:
        assert await download(Origin((url,)), fd, RULES, lambda _: None) == len(DATA)
        for path in ("loop", "away", "file"):
            with pytest.raises(BrickyardError) as caught:
                await download(Origin((url.replace("image", path),)), fd, RULES, lambda _: None)
            assert code_of(caught) == "image.source-moved"


async def test_bounds(fd: int) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(bytes(1 << 20))

    async def packed(request: web.Request) -> web.Response:
        return web.Response(body=DATA, headers={"Content-Encoding": "br"})

    async def whole(request: web.Request) -> web.Response:
        return web.Response(body=DATA)

    async def slow(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x")
            await asyncio.sleep(0.05)

    small = replace(RULES, max_bytes=4 << 20)
    for handler, rules, size, code in (
        (endless, small, None, "image.source-size"),
        (whole, small, None, "image.source-size"),
        (whole, RULES, len(DATA) + 1, "image.source-size"),
        (whole, RULES, len(DATA) - 1, "image.source-size"),
        (packed, RULES, None, "image.source-away"),
        (slow, replace(RULES, timeout_s=0.5), None, "image.source-slow"),
    ):
        async with serving(handler) as url:
            with pytest.raises(BrickyardError) as caught:
                await download(Origin((url,), size=size), fd, rules, lambda _: None)
        assert code_of(caught) == code
        assert len(held(fd)) <= len(DATA)


async def test_this_hosts_own_networks_need_to_be_listed(fd: int) -> None:
    async def give(request: web.Request) -> web.Response:
        raise AssertionError("nobody may come here")

    async with serving(give) as url:
        for each in (url, url.replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "[::ffff:127.0.0.1]")):
            with pytest.raises(BrickyardError) as caught:
                await download(Origin((each,)), fd, replace(RULES, networks=()), lambda _: None)
            assert code_of(caught) == "image.source-refused"
