"""How a call reaches an agent. `Transport` is the interface; `HttpTransport` is HTTPS with mutual TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from agent.base.errors import from_body
from agent.wire.errors import BadAnswer, OutcomeUnknown, Undelivered
from agent.wire.tls import TlsIdentity, server_name

CONNECT_S = 5.0
_PATIENCE_S = 0.25
_FOR_EACH_OPENING = 4
_JSON = {"Content-Type": "application/json"}


class Transport(Protocol):
    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | float] | None = None,
        body: Any = None,
        timeout: float = 30.0,
    ) -> Any:
        """One request. Returns the decoded JSON answer (None when empty). `timeout` in seconds, for all of it.

        Raises the error that the other side reported, `Undelivered` when no byte was sent, `OutcomeUnknown` after.
        """

    async def rest(self) -> None:
        """Close the connections that no call is made on."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Request:
    """`sent`: whether the head went out, in any try, those that aiohttp makes by itself included; `opening`: whether
    it opens a connection, and has none yet.
    """

    method: str
    url: URL
    data: bytes | None
    limit: aiohttp.ClientTimeout
    sent: bool = False
    opening: bool = False
    pool: _Pool | None = None


async def _on_head(_session: Any, context: Any, _params: Any) -> None:
    context.trace_request_ctx.sent = True


async def _on_opening(_session: Any, context: Any, _params: Any) -> None:
    request = context.trace_request_ctx
    if not request.opening:
        request.pool.has_no_idle()


async def _on_connection(_session: Any, context: Any, _params: Any) -> None:
    request = context.trace_request_ctx
    if request.opening:  # One that finds another's connection leaves that one to open the new one.
        request.opening = False
        request.pool.opened()


@dataclass(slots=True, eq=False)
class _Pool:
    """The connections of one generation of our certificate; closed when the last call on them ends."""

    session: aiohttp.ClientSession
    context: ssl.SSLContext
    generation: int
    calls: int = 0
    retired: bool = False
    open: int = 0
    opening: int = 0
    idle: int = 0
    waiting: deque[asyncio.Future[bool]] = field(default_factory=deque)

    async def begin(self) -> bool:
        """Wait for a connection; whether a new one is to be opened.

        A handshake costs both sides more than most calls: of many that come at once one opens a connection, and one
        more for each four that there are, and who waits is given the first that is free, or opens one himself after a
        moment. What is known of `open` and `idle` ones is a guess: the peer may have closed them.
        """
        if self.idle:
            self.idle -= 1
            return False
        if self._may_open():
            self.opening += 1
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        timer = turn.get_loop().call_later(_PATIENCE_S, self._let, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # It was given at the same moment.
                self._returned(turn.result())
            raise
        finally:
            timer.cancel()

    def opened(self) -> None:
        """One more is open: more may be opened at a time."""
        self.opening -= 1
        self.open += 1
        self._let_more()

    def has_no_idle(self) -> None:
        """Who was given an idle one has found none: the peer has closed them, or they were too old."""
        self.open -= self.idle
        self.idle = 0

    def end(self, opening: bool) -> None:
        """Hand the connection on; `opening`: there never was one, and nobody waits for another attempt."""
        if opening:
            self.opening -= 1
            while self.waiting:
                self._let(self.waiting.popleft())
            return
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(False)
                return
        self.idle += 1

    def _returned(self, opening: bool) -> None:
        if not opening:
            self.end(opening=False)
            return
        self.opening -= 1
        self._let_more()

    def _let_more(self) -> None:
        while self.waiting and self._may_open():
            self._let(self.waiting.popleft())

    def _may_open(self) -> bool:
        return self.opening < max(1, self.open // _FOR_EACH_OPENING)

    def _let(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            self.opening += 1
            turn.set_result(True)


class HttpTransport:
    """Keep-alive pool to one peer, whose certificate must name `role`. Use from one event loop.

    One is kept for every host of a site: at rest it is small, what takes space is made by a call.
    """

    __slots__ = (
        "_closing",
        "_connections",
        "_identity",
        "_own_context",
        "_pool",
        "_retired",
        "address",
        "port",
        "role",
    )

    def __init__(
        self,
        address: str,
        port: int,
        role: str,
        identity: TlsIdentity,
        *,
        connections: int = 256,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.address, self.port, self.role = address, port, role
        self._identity = identity
        self._own_context = context
        self._connections = connections
        self._pool: _Pool | None = None
        self._retired: tuple[_Pool, ...] = ()
        self._closing: tuple[asyncio.Task[None], ...] = ()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | float] | None = None,
        body: Any = None,
        timeout: float = 30.0,
    ) -> Any:
        request = _Request(
            method,
            URL(self._base() + path + (f"?{urlencode(query)}" if query else ""), encoded=True),
            None if body is None else json.dumps(body, separators=(",", ":")).encode(),
            aiohttp.ClientTimeout(total=timeout, connect=min(CONNECT_S, timeout)),
        )
        pool = self._current()
        pool.calls += 1
        try:
            request.pool, request.opening = pool, await pool.begin()
        except BaseException:
            self._ended(pool)
            raise
        try:
            try:
                return await self._try(pool, request)
            except aiohttp.ServerDisconnectedError:
                # The peer closed a kept connection as we wrote on it. Each call may be made twice by contract.
                return await self._try(pool, request)
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(request, error) from error
        except RuntimeError as error:
            if not pool.session.closed:
                raise
            raise self._failure(request, error) from error
        finally:
            pool.end(request.opening)
            self._ended(pool)

    def _ended(self, pool: _Pool) -> None:
        pool.calls -= 1
        if pool.retired and not pool.calls:
            self._dispose(pool)

    def _base(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{self.port}"

    async def rest(self) -> None:
        pool = self._pool
        if pool is not None and not pool.calls:
            self._pool = None
            await pool.session.close()

    async def close(self) -> None:
        """Close all connections; calls still running end with `OutcomeUnknown`."""
        pool, self._pool = self._pool, None
        for one in [*([pool] if pool is not None else []), *self._retired]:
            await one.session.close()
        if self._closing:
            await asyncio.gather(*self._closing)

    async def _try(self, pool: _Pool, request: _Request) -> Any:
        async with pool.session.request(
            request.method,
            request.url,
            data=request.data,
            headers=_JSON if request.data is not None else None,
            ssl=pool.context,
            server_hostname=server_name(self.role),
            timeout=request.limit,
            allow_redirects=False,
            trace_request_ctx=request,
        ) as response:
            raw = await response.read()
            return self._decode(response.status, response.content_type, raw)

    def _decode(self, status: int, content_type: str, raw: bytes) -> Any:
        if not raw and status < 300:
            return None
        if status < 300 and content_type.startswith("text/"):
            return raw.decode()
        try:
            answer = json.loads(raw)
        except ValueError:
            raise self._bad(status, "it is not JSON") from None
        if status < 300:
            return answer
        error = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(error, dict) or "code" not in error:
            raise self._bad(status, "the error has no code")
        raise from_body(error)

    def _bad(self, status: int, reason: str) -> BadAnswer:
        return BadAnswer(peer=self.role, address=f"{self.address}:{self.port}", status=status, reason=reason)

    def _failure(self, request: _Request, error: BaseException) -> Undelivered | OutcomeUnknown:
        reason = str(error) or type(error).__name__
        kind = OutcomeUnknown if request.sent else Undelivered
        return kind(peer=self.role, address=f"{self.address}:{self.port}", reason=reason)

    def _current(self) -> _Pool:
        pool = self._pool
        if pool is not None and pool.generation == self._identity.generation:
            return pool
        if pool is not None:
            pool.retired = True
            self._retired += (pool,)
            if not pool.calls:
                self._dispose(pool)
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_on_head)
        trace.on_connection_create_start.append(_on_opening)
        trace.on_connection_create_end.append(_on_connection)
        trace.on_connection_reuseconn.append(_on_connection)
        connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60, force_close=False)
        session = aiohttp.ClientSession(
            connector=connector, trace_configs=[trace], cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        context = self._own_context or self._identity.client_context()
        self._pool = _Pool(session, context, self._identity.generation)
        return self._pool

    def _dispose(self, pool: _Pool) -> None:
        self._retired = tuple(one for one in self._retired if one is not pool)
        task = asyncio.get_running_loop().create_task(pool.session.close())
        self._closing = (*(one for one in self._closing if not one.done()), task)
