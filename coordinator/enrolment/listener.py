"""The enrolment port: the one place that answers callers without a certificate.

`GET /ca` shows the CA (the joiner compares its digest with the token before it sends anything); `POST /enrol` spends
a token. Bodies are small, connections few and short.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import ValidationError

from agent.base.errors import BrickyardError, Invalid
from agent.base.log import get_logger
from agent.wire.joining import EnrolRequest
from agent.wire.tls import TlsIdentity
from coordinator.enrolment.service import Enrolment

_MAX_BODY = 32 * 1024
_STOP_S = 1.0
_log = get_logger(__name__)


class EnrolmentListener:
    """Owns the listening socket. `await start()`, then `port` tells where; `await close()`."""

    def __init__(
        self,
        enrolment: Enrolment,
        identity: TlsIdentity,
        bind: str = "0.0.0.0",  # noqa: S104
        port: int = 0,
        enrolled: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._enrolment, self._identity, self._enrolled = enrolment, identity, enrolled
        self._bind, self.port = bind, port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_get("/ca", self._ca)
        app.router.add_post("/enrol", self._enrol)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=5, shutdown_timeout=_STOP_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._bind, self.port, ssl_context=self._identity.open_context(), backlog=16)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _ca(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._enrolment.authority.ca_pem)

    async def _enrol(self, request: web.Request) -> web.Response:
        try:
            try:
                wanted = EnrolRequest.model_validate(json.loads(await request.read()))
            except (ValidationError, ValueError, RecursionError):
                raise Invalid(reason="The body is not an enrolment request.") from None
            answer = await self._enrolment.enrol(wanted, request.remote or "")
        except BrickyardError as error:
            _log.warning("enrolment refused", remote=request.remote, code=error.code)
            return web.json_response({"error": error.to_body()}, status=error.status)
        _log.info("host enrolled", host=answer.host_id, remote=request.remote)
        if self._enrolled is not None:
            await self._enrolled()
        return web.json_response(answer.model_dump(mode="json"))
