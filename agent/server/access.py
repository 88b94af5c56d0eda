"""Who may call the control port: coordinators, and on /metrics a metrics certificate. Nobody else, on any route."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from agent.base.errors import Invalid
from agent.base.files import write_whole
from agent.wire.errors import PeerRefused
from agent.wire.tls import COORDINATOR, METRICS, DenyList, peer_of

_MAX_SERIALS = 100_000


class DeniedSerials:
    """The deny list that the coordinator sends (lower-case hex serials), kept across restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._serials = frozenset(str(serial) for serial in json.loads(path.read_bytes()))
        except FileNotFoundError:
            self._serials = frozenset()

    def __contains__(self, serial: object, /) -> bool:
        return serial in self._serials

    def replace(self, serials: Iterable[str]) -> None:
        """Use this list from now on, also for connections that stand; blocking (a small synced file)."""
        wanted = frozenset(serials)
        if len(wanted) > _MAX_SERIALS or not all(_is_serial(serial) for serial in wanted):
            raise Invalid(reason="The deny list holds something that is not a serial.")
        if wanted != self._serials:
            write_whole(self._path, json.dumps(sorted(wanted)).encode())
            self._serials = wanted


def require_role(denied: DenyList, metrics_path: str = "/metrics") -> Middleware:
    """Middleware to stand first: refuses every other role with 403 before anything of the request is read."""

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            peer = peer_of(request.transport)
            peer.check(denied)
            if peer.role != COORDINATOR and not (peer.role == METRICS and request.path == metrics_path):
                raise PeerRefused(reason=f"role {peer.role} may not call this")
        except PeerRefused as error:
            response = web.json_response({"error": error.to_body()}, status=error.status)
            response.force_close()
            return response
        return await handler(request)

    return check


def _is_serial(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 40 and all(c in "0123456789abcdef" for c in text)
