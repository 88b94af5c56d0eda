"""The data port: bulk bytes between hosts (and a user's own upload or download), one ticket per transfer.

`GET /v1/transfers/NAME` with a byte range reads; `PUT /v1/transfers/NAME?offset=N[&last=1]` writes one segment;
`GET .../state` tells size, or how far a write has come. `take=1` takes over from a connection that the same peer
lost. Files are read and written in threads, one block ahead; a transfer holds a few MiB of memory whatever its size.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from agent.base.errors import BrickyardError, Invalid
from agent.base.log import get_logger
from agent.base.metrics import registry
from agent.host.run import uninterrupted
from agent.targets.tickets import Direction, Ticket, Tickets
from agent.wire.errors import TransferDenied, TransferMismatch, TransferTooLarge
from agent.wire.tls import TlsIdentity, peer_of

BLOCK = 1 << 20
STALL_S = 60.0
# Spread over the transfer, so that its end does not wait for minutes of writing back.
SYNC_EVERY = 64 << 20
T = TypeVar("T")
_log = get_logger(__name__)
_moved = registry.counter(
    "brickyard_agent_transfer_bytes",
    "Bytes that the data port gave (read) or took (write)",
    direction=("read", "write"),
)


class DataPort:
    """Owns the listener and its tickets. `await start()`, then `port` tells where; `await close()` ends it all."""

    def __init__(self, identity: TlsIdentity, bind: str = "0.0.0.0", port: int = 0) -> None:  # noqa: S104
        self._identity, self._bind, self.port = identity, bind, port
        self._tickets = Tickets()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=0)
        app.router.add_get("/v1/transfers/{name}", _guarded(self._get), allow_head=False)
        app.router.add_put("/v1/transfers/{name}", _guarded(self._put))
        app.router.add_get("/v1/transfers/{name}/state", _guarded(self._state), allow_head=False)
        self._runner = web.AppRunner(app, access_log=None, read_bufsize=BLOCK)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._bind, self.port, ssl_context=self._identity.server_context()).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        await self._tickets.close_all()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def open_ticket(
        self,
        path: Path,
        direction: Direction,
        peer: str,
        lifetime_s: float = 3600.0,
        max_bytes: int | None = None,
    ) -> str:
        """Offer one file to one peer (`host:NAME` or `coordinator`); returns the random name.

        For writing the file is made empty. After `lifetime_s` the ticket is gone, with whoever uses it.
        """
        ticket = await self._tickets.open(path, direction, peer, lifetime_s, max_bytes)
        return ticket.name

    async def close_ticket(self, name: str) -> bool:
        """End a ticket; True when a write on it had been completed and synced. A name that is gone is fine."""
        ticket = await self._tickets.close(name)
        return ticket is not None and ticket.complete

    async def close_writers(self, path: Path) -> None:
        """End the tickets to write a file that is about to be judged: nothing touches it afterwards."""
        await self._tickets.close_writers(path)

    def _find(self, request: web.Request, direction: Direction | None) -> Ticket:
        peer = peer_of(request.transport)
        peer.check(self._identity.denied)
        return self._tickets.find(request.match_info["name"], direction, peer.role)

    async def _state(self, request: web.Request) -> web.StreamResponse:
        ticket = self._find(request, None)
        if ticket.direction == "read":
            tag, size = _tag(ticket.fd)
            return web.json_response({"tag": tag, "size": size})
        return web.json_response({"received": ticket.received, "complete": ticket.complete})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        ticket = self._find(request, "read")
        async with ticket.use("take" in request.query):
            tag, size = await _in_thread(_tag, ticket.fd)
            start, stop = _range(request, size)
            if request.headers.get("If-Match", tag) != tag:
                raise TransferMismatch(offset=start, reason="the file changed meanwhile")
            response = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers={"ETag": tag})
            response.headers["Brickyard-Size"] = str(size)
            response.content_length = stop - start
            response.content_type = "application/octet-stream"
            await response.prepare(request)
            try:
                await _send(ticket.fd, start, stop, response)
                await response.write_eof()
            except OSError as error:
                # The head is out: only the end of the connection can still tell the peer.
                raise ConnectionAbortedError(str(error)) from error
            return response

    async def _put(self, request: web.Request) -> web.StreamResponse:
        ticket = self._find(request, "write")
        offset = _number(request.query.get("offset", ""))
        length = request.content_length
        if length is None:
            raise Invalid(reason="A segment must say its length.")
        async with ticket.use("take" in request.query):
            end = offset + length
            if ticket.complete and end != ticket.received:
                raise TransferMismatch(offset=offset, reason="it was completed already")
            if offset > ticket.received:
                raise TransferMismatch(offset=offset, reason=f"only {ticket.received} bytes have arrived")
            if ticket.max_bytes is not None and end > ticket.max_bytes:
                raise TransferTooLarge(limit=ticket.max_bytes)
            if not ticket.complete:
                await _receive(ticket, offset, request)
                ticket.unsynced += length
                _moved.inc(length, direction="write")
                if ticket.unsynced >= SYNC_EVERY:
                    await _in_thread(os.fdatasync, ticket.fd)
                    ticket.unsynced = 0
                if "last" in request.query:
                    await _in_thread(_finish, ticket.fd, end)
                    ticket.received, ticket.complete = end, True
            return web.json_response({"received": ticket.received})


def _guarded(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (ConnectionError, TimeoutError, asyncio.CancelledError) as error:
            # The peer went away, stalled, or was replaced: the answer has no reader, the connection must end.
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable from error
        except OSError as error:
            failure: BrickyardError = TransferDenied(reason=error.strerror or "input/output error")
        except BrickyardError as error:
            failure = error
        _log.warning("transfer refused", code=failure.code, remote=request.remote)
        response = web.json_response({"error": failure.to_body()}, status=failure.status)
        response.force_close()
        return response

    return guarded


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """Like `asyncio.to_thread`, but a cancelled caller still waits: the descriptor is in use until the thread ends."""
    return await uninterrupted(asyncio.to_thread(function, *args))


async def _send(fd: int, start: int, stop: int, response: web.StreamResponse) -> None:
    loop = asyncio.get_running_loop()
    ahead = loop.run_in_executor(None, os.pread, fd, min(BLOCK, stop - start), start)
    try:
        while start < stop:
            block = await asyncio.shield(ahead)
            if not block:
                raise ConnectionAbortedError("the file became shorter")
            start += len(block)
            if start < stop:
                ahead = loop.run_in_executor(None, os.pread, fd, min(BLOCK, stop - start), start)
            async with asyncio.timeout(STALL_S):
                await response.write(block)
            _moved.inc(len(block), direction="read")
    finally:
        # The descriptor may be closed, and its number reused, only when no thread reads it any more.
        await uninterrupted(_ended(ahead))


async def _receive(ticket: Ticket, offset: int, request: web.Request) -> None:
    loop = asyncio.get_running_loop()
    pending: asyncio.Future[int] | None = None
    try:
        while True:
            blocks, size = await _gather_block(request)
            if pending is not None:
                ticket.received = max(ticket.received, await asyncio.shield(pending))
                pending = None
            if not size:
                return
            pending = loop.run_in_executor(None, _write, ticket.fd, blocks, offset)
            offset += size
    finally:
        if pending is not None:
            await uninterrupted(_ended(pending))


async def _ended(work: asyncio.Future[Any]) -> None:
    await asyncio.wait([work])


async def _gather_block(request: web.Request) -> tuple[list[bytes], int]:
    blocks: list[bytes] = []
    size = 0
    async with asyncio.timeout(STALL_S):
        while size < BLOCK:
            data = await request.content.readany()
            if not data:
                break
            blocks.append(data)
            size += len(data)
    return blocks, size


def _write(fd: int, blocks: list[bytes], offset: int) -> int:
    """Zeros past all that was ever written stay a hole: less to write, and to wait for when it is synced."""
    untouched = offset >= os.fstat(fd).st_size
    for block in blocks:
        if untouched and block == bytes(len(block)):
            offset += len(block)
            continue
        view = memoryview(block)
        while view:
            done = os.pwrite(fd, view, offset)
            offset, view = offset + done, view[done:]
    return offset


def _finish(fd: int, size: int) -> None:
    os.ftruncate(fd, size)
    os.fsync(fd)


def _tag(fd: int) -> tuple[str, int]:
    facts = os.fstat(fd)
    return f'"{facts.st_size:x}-{facts.st_mtime_ns:x}"', facts.st_size


def _range(request: web.Request, size: int) -> tuple[int, int]:
    try:
        asked = request.http_range
    except ValueError:
        raise Invalid(reason="The byte range can not be read.") from None
    start, stop = asked.start or 0, size if asked.stop is None else min(asked.stop, size)
    if start < 0 or start > stop:
        raise TransferMismatch(offset=start, reason=f"the file has {size} bytes")
    return start, stop


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise Invalid(reason="The offset is not a number.")
    return int(text)
