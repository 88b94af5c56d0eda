"""One call as a handler sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from multidict import MultiMapping

from coordinator.identity.context import RequestContext
from coordinator.identity.errors import Forbidden

if TYPE_CHECKING:
    from aiohttp import web

    from coordinator.api.route import Route
    from coordinator.api.services import Services

T = TypeVar("T")


@dataclass(slots=True)
class Call:
    """Everything about one request. `body` is an instance of the route's body model (or None without one)."""

    context: RequestContext
    services: Services
    route: Route
    request: web.Request
    params: Mapping[str, str]
    query: MultiMapping[str]
    body: Any
    base_url: str
    """What the caller reached us at, without a slash at the end: `http://host:8776`."""
    prefix: str
    """The form of the path that the caller used: `/v3` or `/v3/PROJECT`."""
    address: str | None = None
    """Where he calls from."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers to send with the answer."""
    brickyard: int = 0
    """The minor of `brickyard 1.N`."""

    @property
    def version(self) -> int:
        """The minor of the Block Storage microversion: 3.N."""
        return self.context.version

    def valid(self, model: type[T]) -> T:
        """The body, as the class that the route declared."""
        if not isinstance(self.body, model):
            raise TypeError(f"route {self.route.label} has no body of {model.__name__}")
        return self.body

    def may(self, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        """Whether policy allows `rule` on `target` (a row with project_id and user_id; default: the caller's own)."""
        return self.services.policy.allows(rule, self.context.principal, target)

    def require(self, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """Raise `Forbidden` (403) unless policy allows `rule` on `target`."""
        if not self.may(rule, target):
            raise Forbidden(rule=rule)

    def link(self, path: str) -> str:
        """The address of `path` (`volumes/ID`) in the form that the caller used."""
        return f"{self.base_url}{self.prefix}/{path}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler returns when the status or a header depends on what happened."""

    body: Any = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
