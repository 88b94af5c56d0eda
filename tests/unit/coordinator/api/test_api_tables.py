"""All tables together: routes that do not clash, and a valid OpenAPI document."""

from __future__ import annotations

import json

from openapi_spec_validator import validate

from coordinator.api.answers import encoded
from coordinator.api.known import known_calls, not_served
from coordinator.api.openapi import document
from coordinator.api.resources import all_resources
from coordinator.api.tree import Tree


def test_the_document_is_valid():
    made = json.loads(encoded(document(all_resources())))
    validate(made)
    ids = [place["operationId"] for path in made["paths"].values() for place in path.values()]
    assert len(ids) == len(set(ids))


def test_every_route_is_found_at_its_path():
    resources = all_resources()
    tree = Tree(resources)
    for resource in resources:
        for route in resource.routes:
            path = resource.full(route).replace("{", "x").replace("}", "")
            match = tree.find(path, lambda _: False)
            assert match is not None, path
            found = match.node.actions.get(route.action) if route.action else match.node.methods.get(route.method)
            assert route in (found or []), route.label


def test_known_calls_are_known_once():
    shapes = [call.shape for call in known_calls()]
    assert len(shapes) == len(set(shapes))
    assert all(call in known_calls() for call in not_served(all_resources()))
