"""What the Block Storage API has that this release may not serve, so that a refusal can name it.

The list is data (`known_calls.toml`: method, path, action); what is served is the route tables; the difference is
`docs/reference/not-served.md`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent.base.errors import BrickyardError
from coordinator.api.errors import ActionNotServed, NotServed
from coordinator.api.route import V3, Resource
from coordinator.api.tree import lacks_an_id

_LIST = Path(__file__).with_name("known_calls.toml")


@dataclass(frozen=True, slots=True)
class KnownCall:
    """One call of Block Storage v3; `path` as in the tables, relative to /v3."""

    method: str
    path: str
    action: str | None

    @property
    def shape(self) -> tuple[str, tuple[str, ...], str | None]:
        """The same for two paths that differ only in the names of their parameters."""
        return self.method, _shape(self.path), self.action


@cache
def known_calls() -> tuple[KnownCall, ...]:
    """All of them, in the order of the list."""
    lines = (line.split() for line in tomllib.loads(_LIST.read_text())["calls"].splitlines() if line)
    return tuple(KnownCall(words[0], words[1], words[2] if len(words) > 2 else None) for words in lines)


def not_served(resources: Iterable[Resource]) -> list[KnownCall]:
    """The known calls that no table declares."""
    served = {
        (route.method, _shape(route.path), route.action)
        for resource in resources
        if resource.prefix == V3
        for route in resource.routes
    }
    return [call for call in known_calls() if call.shape not in served]


def refusal(resources: Iterable[Resource], method: str, path: str, action: str | None) -> BrickyardError | None:
    """The error that names a known call which is not served; None when the call is not a known one."""
    segments = tuple(part for part in path.split("/") if part)
    if not segments or segments[0] != V3[1:] or lacks_an_id(path):
        return None
    for call in not_served(resources):
        if call.method != method or call.action != action:
            continue
        shape = _shape(call.path)
        if any(_fits(shape, tail) for tail in (segments[1:], segments[2:])):
            if action is not None:
                return ActionNotServed(action=action, path=f"{V3}{call.path}")
            return NotServed(method=method, path=f"{V3}{call.path}")
    return None


def _shape(path: str) -> tuple[str, ...]:
    return tuple("*" if part.startswith("{") else part for part in path.split("/") if part)


def _fits(shape: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    return len(shape) == len(segments) and all(want in {"*", have} for want, have in zip(shape, segments, strict=True))
