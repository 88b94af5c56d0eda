"""Finding the routes of a path: a tree of its segments, so that the cost does not grow with the number of routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from coordinator.api.route import V3, Resource, Route


@dataclass(slots=True)
class Node:
    """A place in the tree; `methods` and `actions` are those of the path that ends here."""

    fixed: dict[str, Node] = field(default_factory=dict)
    any: Node | None = None
    methods: dict[str, list[Route]] = field(default_factory=dict)
    actions: dict[str, list[Route]] = field(default_factory=dict)

    @property
    def served(self) -> bool:
        return bool(self.methods or self.actions)


@dataclass(frozen=True, slots=True)
class Match:
    """A path that is served. `project_id` is the one that stood in the path."""

    node: Node
    values: tuple[str, ...]
    project_id: str | None

    def params(self, route: Route) -> Mapping[str, str]:
        return dict(zip(route.parameters, self.values, strict=True))


class Tree:
    """All routes of all resources. `is_project(segment)` tells project ids apart from ids of other things."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._root = Node()
        for resource in resources:
            for route in resource.routes:
                self._add(resource, route)

    def _add(self, resource: Resource, route: Route) -> None:
        node = self._root
        for segment in _split(resource.full(route)):
            if segment.startswith("{"):
                node.any = node.any or Node()
                node = node.any
            else:
                node = node.fixed.setdefault(segment, Node())
        if route.action is not None:
            routes = node.actions.setdefault(route.action, [])
        else:
            routes = node.methods.setdefault(route.method, [])
        if any(route.since <= other.until and other.since <= route.until for other in routes):
            raise ValueError(f"{resource.full(route)}: {route.label} is declared twice for one version")
        routes.append(route)

    def find(self, raw_path: str, is_project: Callable[[str], object]) -> Match | None:
        """The node of a path as it came over the wire (percent-encoded); None when nothing is served there."""
        if lacks_an_id(raw_path):
            return None
        segments = [unquote(part) if "%" in part else part for part in _split(raw_path)]
        found = _walk(self._root, segments, 0, ())
        if found is not None:
            return Match(*found, None)
        if len(segments) > 1 and segments[0] == V3[1:] and is_project(segments[1]):
            found = _walk(self._root, [segments[0], *segments[2:]], 0, ())
            if found is not None:
                return Match(*found, segments[1])
        return None


def lacks_an_id(path: str) -> bool:
    """An id of Block Storage that the caller's variable did not have: it must not turn into the whole collection."""
    return path.startswith(f"{V3}/") and "" in path.split("/")[3:]


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _walk(node: Node, segments: list[str], at: int, values: tuple[str, ...]) -> tuple[Node, tuple[str, ...]] | None:
    if at == len(segments):
        return (node, values) if node.served else None
    fixed = node.fixed.get(segments[at])
    if fixed is not None:
        found = _walk(fixed, segments, at + 1, values)
        if found is not None:
            return found
    if node.any is not None:
        return _walk(node.any, segments, at + 1, (*values, segments[at]))
    return None
