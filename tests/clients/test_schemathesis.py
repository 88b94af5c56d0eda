"""schemathesis against a live site: what the OpenAPI document promises holds for every call of Block Storage v3, at the
lowest and the highest microversion with generated bodies; and at each version where something begins or ends, what
does, and all that is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from coordinator.api.resources import all_resources
from coordinator.api.route import V3
from tests.clients.livesite import LiveSite, live_site

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(1800)]
ROUTES = [route for resource in all_resources() if resource.prefix == V3 for route in resource.routes]
BOUNDARIES = sorted({0, 71, *(route.since for route in ROUTES), *(route.until for route in ROUTES)})


def changing(version: int) -> set[tuple[str, str]]:
    """The calls that begin at a version, or end with it."""
    return {(route.method, f"{V3}{route.path}") for route in ROUTES if version in {route.since, route.until}}


CALM = {"suppress_health_check": list(HealthCheck), "deadline": None, "phases": [Phase.generate], "database": None}
CHECKS = [not_a_server_error, response_schema_conformance]
CAN_WAIT = {503}
"""A host that is asked at the moment of the call, and is not there, is no defect of the API."""


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    with live_site(agents=1) as site:
        yield site


@pytest.mark.parametrize("version", BOUNDARIES)
def test_the_document_holds(site: LiveSite, version: int) -> None:
    raw = requests.get(f"{site.url}/openapi.json", timeout=100).json()
    schema = schemathesis.openapi.from_dict(raw)
    schema.config.base_url = site.url
    headers = {"X-Auth-Token": site.session().get_token(), "OpenStack-API-Version": f"volume 3.{version}"}
    whole = version in {0, 71}
    seen, wrong = 0, []
    for result in schema.get_all_operations():
        operation = result.ok()
        call = (operation.method.upper(), operation.path)
        if not operation.path.startswith("/v3/") or not (whole or call[0] == "GET" or call in changing(version)):
            continue

        @seed(version)
        @settings(max_examples=4 if whole else 1, **CALM)
        @given(case=operation.as_strategy())
        def holds(case: schemathesis.Case) -> None:
            case.headers = {**headers}
            answer = case.call(timeout=60)
            if answer.status_code not in CAN_WAIT:
                case.validate_response(answer, checks=CHECKS)

        seen += 1
        try:
            holds()
        except AssertionError as error:
            wrong.append(f"{operation.label}: {str(error)[:600]}")
        except Exception as error:  # noqa: BLE001 - a group of failures is one finding
            wrong.append(f"{operation.label}: {type(error).__name__} {str(error)[:600]}")
    assert seen > 40
    assert wrong == [], f"{len(wrong)} of {seen}:\n" + "\n".join(wrong)
