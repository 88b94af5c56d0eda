"""From a request to an answer: route, version, caller, policy, body, handler, answer. One function each, in order."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from random import getrandbits
from typing import Any

from aiohttp import web

from agent.base.errors import BrickyardError
from agent.base.log import bound, get_logger
from coordinator.api.answers import encoded, finished
from coordinator.api.bodies import checked, parsed, received
from coordinator.api.call import Call, Reply
from coordinator.api.errors import (
    MalformedUrl,
    NoSuchAction,
    NoSuchPath,
    UnsupportedMedia,
    VersionNotHere,
    WrongMethod,
)
from coordinator.api.faults import Unexpected, fault
from coordinator.api.known import refusal
from coordinator.api.languages import Languages
from coordinator.api.metrics import observe
from coordinator.api.project_tree import ProjectTree
from coordinator.api.proxies import Proxies
from coordinator.api.read_only import ReadOnly
from coordinator.api.route import V3, Resource, Route
from coordinator.api.services import Services
from coordinator.api.tree import Match, Tree
from coordinator.api.version import BASE, HEADER, Versions, negotiate
from coordinator.identity.context import ANONYMOUS, Principal, RequestContext
from coordinator.identity.errors import Forbidden, Unauthorized

_log = get_logger(__name__)
_SPENDING = frozenset({"POST", "PUT"})
_REQUEST_ID = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Crash:
    """An exception that should not have been; the hook makes an issue of it."""

    request_id: str
    label: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class Hooks:
    """What else wants to know: `crashed`, of each unexpected exception."""

    crashed: Callable[[Crash], Awaitable[None]] | None = None


class Dispatcher:
    """`handle` is the one aiohttp handler. Holds nothing that changes."""

    def __init__(self, resources: Iterable[Resource], services: Services, hooks: Hooks) -> None:
        self._resources = tuple(resources)
        self._tree = Tree(self._resources)
        self._services = services
        self._hooks = hooks
        self._is_project = re.compile(services.settings.project_id_regex).fullmatch
        self._validation = services.settings.response_validation
        self._languages = Languages(services.settings.locale_dir)
        self._proxies = Proxies(services.settings.trusted_proxies)
        self._projects = services.find(ProjectTree)
        self._read_only = ReadOnly(services.db)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        state = _State(_request_id())
        with bound(request_id=state.request_id):
            try:
                response = await self._serve(request, state)
            except BrickyardError as error:
                response = fault(error, request.path, self._languages.best(request.headers.get("Accept-Language")))
                self._challenge(error, request, response)
                if response.status >= 500:
                    _log.error("a request failed", route=state.label, status=response.status, exc_info=error)
            except Exception as error:  # noqa: BLE001 - the last line of defence
                response = await self._crashed(error, request, state)
        if not response.prepared:
            self._sign(request, response, state)
        observe(state.label, response.status, time.perf_counter() - started)
        return response

    async def _serve(self, request: web.Request, state: _State) -> web.StreamResponse:
        path = request.rel_url.raw_path
        match = self._tree.find(path, self._is_project)
        if request.headers.get(HEADER) is not None:
            state.versions = negotiate(request.headers.getall(HEADER))
        public = match is not None and _public(match, request.method)
        principal, service_roles = ANONYMOUS, frozenset[str]()
        if not public:
            wished = match.project_id if match is not None else None
            prove = self._services.authenticator.authenticate
            principal, service_roles = await prove(request.headers, self._proxies.caller(request), wished)
        if match is None:
            raise refusal(self._resources, request.method, request.path, None) or NoSuchPath(
                method=request.method, path=request.path
            )
        if match.project_id is not None and not public and match.project_id != principal.project_id:
            raise MalformedUrl
        raw = await self._raw(request, match)
        route = _chosen(match, request, raw, state.versions, self._resources)
        state.label = route.label
        admin = not public and self._services.policy.is_admin(principal)
        context = RequestContext(
            principal,
            state.request_id,
            version=state.versions.volume,
            is_admin=admin,
            service_roles=service_roles,
            global_request_id=_global_id(request.headers),
        )
        self._allowed(route, principal)
        await self._read_only.check(request.method, path, route.policy)
        if self._projects is not None and principal.project_id and request.method in _SPENDING:
            await self._projects.learn(principal.project_id)
        call = self._call(request, match, route, context, state.versions)
        if route.body is not None:
            key = route.action or route.body_key
            call.body = checked(route.body, raw or {}, key, state.versions.volume, state.versions.brickyard)
        return self._answer(route, await route.handler(call), call)

    async def _raw(self, request: web.Request, match: Match) -> dict[str, Any] | None:
        """The body as a JSON object; None when there is none or the handler reads it by itself."""
        if not request.can_read_body or any(route.streams for route in match.node.methods.get(request.method, ())):
            return None
        raw = await received(request, self._services.settings.max_body)
        if not raw:
            return None
        if request.content_type not in _JSON:
            raise UnsupportedMedia(type=request.content_type)
        return parsed(raw)

    def _allowed(self, route: Route, principal: Principal) -> None:
        if route.policy is not None and not self._services.policy.allows(route.policy, principal):
            raise Forbidden(rule=route.policy)

    def _call(
        self, request: web.Request, match: Match, route: Route, context: RequestContext, versions: Versions
    ) -> Call:
        prefix = f"{V3}/{match.project_id}" if match.project_id is not None else V3
        return Call(
            context=context,
            services=self._services,
            route=route,
            request=request,
            params=match.params(route),
            query=request.query,
            body=None,
            base_url=self._base(request),
            address=self._proxies.caller(request),
            prefix=prefix,
            brickyard=versions.brickyard,
        )

    def _base(self, request: web.Request) -> str:
        return (self._services.settings.public_endpoint or self._proxies.base(request)).rstrip("/")

    def _answer(self, route: Route, result: Any, call: Call) -> web.StreamResponse:
        if isinstance(result, web.StreamResponse):
            return result
        status = route.status
        if isinstance(result, Reply):
            status, call.headers, result = result.status or status, {**call.headers, **result.headers}, result.body
        if result is None:
            return web.Response(status=status, headers=call.headers or None)
        data = finished(route.answer, result, call.version, self._validation, route.label)
        if route.answer_key is not None:
            data = {route.answer_key: data}
        return web.Response(
            body=encoded(data), status=status, headers=call.headers or None, content_type="application/json"
        )

    async def _crashed(self, error: Exception, request: web.Request, state: _State) -> web.Response:
        _log.error("a request ended in an unexpected exception", route=state.label, exc_info=error)
        if self._hooks.crashed is not None:
            try:
                await self._hooks.crashed(Crash(state.request_id, state.label, error))
            except Exception as second:  # noqa: BLE001 - the first error matters more
                _log.error("the issue could not be recorded", exc_info=second)
        return fault(Unexpected(), request.path, self._languages.best(request.headers.get("Accept-Language")))

    def _challenge(self, error: BrickyardError, request: web.Request, response: web.Response) -> None:
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = self._services.authenticator.challenge(self._base(request))

    def _sign(self, request: web.Request, response: web.StreamResponse, state: _State) -> None:
        headers = response.headers
        headers["x-openstack-request-id"] = headers["x-compute-request-id"] = state.request_id
        if request.path.startswith(V3) or request.path == "/":
            headers[HEADER] = state.versions.header
            headers["Vary"] = HEADER
        elif request.path.startswith("/identity"):
            headers["Vary"] = "X-Auth-Token"


_JSON = frozenset({"application/json", "application/vnd.openstack.volume+json", "application/json-patch+json"})


@dataclass(slots=True)
class _State:
    """What is known of a request so far, for its answer."""

    request_id: str
    label: str = "unmatched"
    versions: Versions = BASE


def _public(match: Match, method: str) -> bool:
    return all(route.public for route in match.node.methods.get(method, ())) and method in match.node.methods


def _chosen(
    match: Match, request: web.Request, raw: Mapping[str, Any] | None, versions: Versions, resources: Iterable[Resource]
) -> Route:
    """The route for the method, the action in the body and the version."""
    node, method = match.node, request.method
    if node.actions and method == "POST":
        name = next(iter(raw), "") if raw else ""
        routes = node.actions.get(name)
        if routes is None:
            raise refusal(resources, method, request.path, name) or NoSuchAction(action=name[:64])
    else:
        routes = node.methods.get(method) or (node.methods.get("GET") if method == "HEAD" else None)
        if routes is None:
            raise refusal(resources, method, request.path, None) or WrongMethod(
                method=method, path=request.path, allowed=", ".join(sorted(node.methods) or ["POST"])
            )
    for route in routes:
        if route.since <= versions.volume <= route.until:
            return route
    first, last = min(route.since for route in routes), max(route.until for route in routes)
    raise VersionNotHere(version=f"3.{versions.volume}", first=f"3.{first}", last=f"3.{last}")


def _request_id() -> str:
    """No secret, so it need not cost a call of the kernel."""
    text = f"{getrandbits(128):032x}"
    return f"req-{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def _global_id(headers: Mapping[str, str]) -> str | None:
    given = headers.get("X-OpenStack-Request-ID")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None
