"""All tables together: routes that do not clash, and a valid OpenAPI document."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from coordinator.api.answers import encoded
from coordinator.api.known import known_calls, not_served
from coordinator.api.openapi import document
from coordinator.api.openapi_at import at
from coordinator.api.resources import all_resources
from coordinator.api.tree import Tree


def test_the_document_is_valid():
    made = json.loads(encoded(document(all_resources())))
    validate(made)
    ids = [place["operationId"] for path in made["paths"].values() for place in path.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("version", "there", "closed"),
    [(12, set(), None), (13, {"group_id"}, None), (47, {"group_id", "backup_id"}, None),
     (53, {"group_id", "backup_id"}, False)],
)  # fmt: skip
def test_the_document_of_a_version_has_what_there_is_at_it(version, there, closed):
    made = at(json.loads(encoded(document(all_resources()))), version)
    validate(made)
    assert made["info"]["version"] == f"3.{version}"
    body = made["components"]["schemas"]["CreateVolume"]
    assert body["properties"].keys() & {"group_id", "backup_id"} == there
    assert body.get("additionalProperties") is closed
    assert ("/v3/volumes/summary" in made["paths"], "/v3/clusters" in made["paths"]) == (version >= 12, version >= 7)
    shown = made["components"]["schemas"]["SnapshotAnswer"]["properties"]
    assert shown.get("user_id") is False if version < 41 else shown["user_id"]


@pytest.mark.parametrize(("version", "taken"), [(65, True), (66, False)])
def test_no_force_is_told_where_it_is_refused(version, taken):
    made = at(json.loads(encoded(document(all_resources()))), version)
    validate(made)
    schema = Draft202012Validator(made["components"]["schemas"]["CreateSnapshot"])
    for value in (False, "false", "No", 0):
        assert schema.is_valid({"volume_id": "v", "force": value}) is taken, value
    for given in (True, "True", "yes", 1, None):
        assert schema.is_valid({"volume_id": "v", "force": given}), given


def test_a_call_of_two_version_ranges_is_there_in_both():
    made = json.loads(encoded(document(all_resources())))
    actions = made["paths"]["/v3/volumes/{volume_id}/action"]["post"]
    assert "x-openstack-min-ver" not in actions
    names = [
        next(iter(body["properties"]))
        for body in actions["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    ]
    assert {"os-extend", "os-extend_volume_completion", "os-reimage"} <= set(names)
    old = at(made, 3)["paths"]["/v3/volumes/{volume_id}/action"]["post"]["requestBody"]["content"]["application/json"]
    assert "os-reimage" not in {next(iter(body["properties"])) for body in old["schema"]["anyOf"]}


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
