"""The table: what is served. One `Resource` per noun, one `Route` per method, path and (for actions) action name.

Routing, request checks, policy, the OpenAPI document and the reference pages all read these and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body
from coordinator.api.version import MAXIMUM

Handler = Callable[[Call], Awaitable[Any]]
V3 = "/v3"
_PARAMETER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One call.

    `path` is relative to the resource's prefix. `policy` is checked with the caller's own project before the body is
    read; finer rules are the handler's. `body_key`/`answer_key` name the key that wraps the object; the key of an
    action is its name. `since`/`until` are minors of 3.N; `query_since` are those of parameters that came later.
    `streams` leaves the body unread for the handler.
    """

    method: str
    path: str
    handler: Handler
    policy: str | None
    summary: str
    action: str | None = None
    body: type[Body] | None = None
    body_key: str | None = None
    answer: type[Answer] | None = None
    answer_key: str | None = None
    query: tuple[str, ...] = ()
    query_since: tuple[tuple[str, int], ...] = ()
    status: int = 200
    since: int = 0
    until: int = MAXIMUM
    public: bool = False
    streams: bool = False
    parameters: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(_PARAMETER.findall(self.path)))

    @property
    def label(self) -> str:
        """Method, path and action, for people and metrics."""
        return f"{self.method} {self.path}" + (f" ({self.action})" if self.action else "")


@dataclass(frozen=True, slots=True)
class Resource:
    """The routes of one noun. Below `/v3` every path is also served as `/v3/{project_id}/...`."""

    name: str
    about: str
    routes: tuple[Route, ...]
    prefix: str = V3

    def full(self, route: Route) -> str:
        """The whole path of a route, without project id."""
        return f"{self.prefix}{route.path}" or "/"


def get(path: str, handler: Handler, policy: str | None, summary: str, **rest: Any) -> Route:
    return Route("GET", path, handler, policy, summary, **rest)


def post(path: str, handler: Handler, policy: str | None, summary: str, **rest: Any) -> Route:
    return Route("POST", path, handler, policy, summary, **rest)


def put(path: str, handler: Handler, policy: str | None, summary: str, **rest: Any) -> Route:
    return Route("PUT", path, handler, policy, summary, **rest)


def patch(path: str, handler: Handler, policy: str | None, summary: str, **rest: Any) -> Route:
    return Route("PATCH", path, handler, policy, summary, **rest)


def delete(path: str, handler: Handler, policy: str | None, summary: str, **rest: Any) -> Route:
    rest.setdefault("status", 202)
    return Route("DELETE", path, handler, policy, summary, **rest)


def action(path: str, name: str, handler: Handler, policy: str | None, summary: str, **rest: Any) -> Route:
    """`POST path {name: {...}}`; the body model is of what stands below the name. Answers 202 unless told."""
    rest.setdefault("status", 202)
    return Route("POST", path, handler, policy, summary, action=name, **rest)
