"""schemathesis against a live site: what the OpenAPI document of a microversion promises holds for every call of Block
Storage v3, at the lowest and the highest microversion with generated bodies; and at each version where a call or a
field begins or ends, or unknown fields begin to be refused, for what does, and all that is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from coordinator.api.answers import encoded
from coordinator.api.openapi import document
from coordinator.api.openapi_at import CLOSED, FROM, UP_TO, number
from coordinator.api.resources import all_resources
from coordinator.api.route import V3
from coordinator.api.version import MAXIMUM
from tests.clients.livesite import LiveSite, live_site

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(1800)]


def marked(part: Any) -> Iterator[int]:
    """All microversions from which on something in the document is another."""
    if isinstance(part, list):
        for item in part:
            yield from marked(item)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name in {FROM, CLOSED}:
                yield number(value)
            elif name == UP_TO:
                yield from (number(value), number(value) + 1)
            else:
                yield from marked(value)


BOUNDARIES = sorted({0, MAXIMUM, *marked(json.loads(encoded(document(all_resources()))))} & {*range(MAXIMUM + 1)})
CALM = {"suppress_health_check": list(HealthCheck), "deadline": None, "phases": [Phase.generate], "database": None}
CHECKS = [not_a_server_error, response_schema_conformance]
CAN_WAIT = {503}
"""A host that is asked at the moment of the call, and is not there, is no defect of the API."""


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    with live_site(agents=1) as site:
        yield site


def made(site: LiveSite, path: str, key: str, **wanted: Any) -> str:
    status, answer = site.call("POST", f"/v3/{path}", json={key: wanted})
    assert status < 300, answer
    site.settled()
    return str(answer[key]["id"])


@pytest.fixture(scope="module")
def there(site: LiveSite) -> dict[str, str]:
    """One of each noun, by the name of the parameter that takes its id."""
    volume = made(site, "volumes", "volume", size=1, name="shown", metadata={"a": "b"})
    snapshot = made(site, "snapshots", "snapshot", volume_id=volume, metadata={"a": "b"})
    offered = made(site, "volumes", "volume", size=1)
    held = made(site, "volumes", "volume", size=1)
    server = "11111111-1111-4111-8111-111111111111"
    kind = made(site, "types", "volume_type", name="shown", extra_specs={"a": "b"})
    return {
        "volume_id": volume, "snapshot_id": snapshot, "volume_type_id": kind, "type_id": kind,
        "attachment_id": made(site, "attachments", "attachment", volume_uuid=held, instance_uuid=server),
        "transfer_id": made(site, "volume-transfers", "transfer", volume_id=offered),
        "qos_id": made(site, "qos-specs", "qos_specs", name="shown", consumer="front-end"),
        "project_id": str(site.session().get_project_id()), "key": "a", "quota_class_name": "default",
    }  # fmt: skip


def described(site: LiveSite, version: int) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{site.url}/openapi.json?version=3.{version}", timeout=100).json()
    return found


def shape(whole: dict[str, Any], part: Any) -> Any:
    """A part of the document with what it refers to in its place."""
    if isinstance(part, list):
        return [shape(whole, item) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return shape(whole, whole["components"]["schemas"][part["$ref"].rpartition("/")[2]])
    return {name: shape(whole, value) for name, value in part.items()}


def changing(before: dict[str, Any], now: dict[str, Any]) -> set[tuple[str, str]]:
    """The calls that are others than a version before."""
    return {
        (method.upper(), path)
        for path, calls in now["paths"].items()
        for method, call in calls.items()
        if shape(now, call) != shape(before, before["paths"].get(path, {}).get(method))
    }


def below_v3(whole: dict[str, Any]) -> set[tuple[str, str]]:
    """All calls of Block Storage in a document."""
    paths = whole["paths"].items()
    return {(method.upper(), path) for path, calls in paths if path.startswith("/v3/") for method in calls}


def test_every_call_of_the_tables_is_in_a_document() -> None:
    made = json.loads(encoded(document(all_resources())))
    served = {
        (route.method, resource.full(route))
        for resource in all_resources()
        for route in resource.routes
        if resource.prefix == V3
    }
    assert below_v3(made) == served
    assert len(served) > 100


def test_fields_begin_where_the_document_says() -> None:
    assert {13, 14, 36, 41, 45, 47, 48, 53, 54, 57, 61, 63, 64, 65} <= set(BOUNDARIES)
    assert {4, 10, 17, 22, 23, 28, 34, 35, 39, 45, 52, 60} <= set(BOUNDARIES)  # parameters of queries


@pytest.mark.parametrize("version", BOUNDARIES)
def test_the_document_holds(site: LiveSite, there: dict[str, str], version: int) -> None:
    raw = described(site, version)
    new = changing(described(site, version - 1), raw) if version else set()
    schema = schemathesis.openapi.from_dict(raw)
    schema.config.base_url = site.url
    headers = {"X-Auth-Token": site.session().get_token(), "OpenStack-API-Version": f"volume 3.{version}"}
    whole = version in {0, MAXIMUM}
    seen, wrong = set(), []
    for result in schema.get_all_operations():
        operation = result.ok()
        call = (operation.method.upper(), operation.path)
        if not operation.path.startswith("/v3/") or not (whole or call[0] == "GET" or call in new):
            continue

        @seed(version)
        @settings(max_examples=4 if whole or call in new else 1, **CALM)
        @given(case=operation.as_strategy())
        def holds(case: schemathesis.Case) -> None:
            case.headers = {**headers}
            if case.method.upper() == "GET":
                case.path_parameters = {name: there.get(name, value) for name, value in case.path_parameters.items()}
                asked = whole or (case.method.upper(), case.operation.path) in new
                case.query = case.query if asked else {}
            answer = case.call(timeout=100)
            if answer.status_code not in CAN_WAIT:
                case.validate_response(answer, checks=CHECKS)

        seen.add(call)
        try:
            holds()
        except AssertionError as error:
            wrong.append(f"{operation.label}: {str(error)[:600]}")
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - a group of failures is one finding
            inside = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
            wrong += [f"{operation.label}: {type(one).__name__} {str(one)[:600]}" for one in inside]
    assert seen == {call for call in below_v3(raw) if whole or call[0] == "GET" or call in new}
    assert wrong == [], f"{len(wrong)} of {len(seen)}:\n" + "\n".join(wrong)
