"""Whatever a caller sends, the answer is never a 500 and never holds a secret that was sent."""

from __future__ import annotations

import json
import re

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.api.errors import VersionMalformed, VersionUnsupported
from coordinator.api.identity import identity_resources
from coordinator.api.v3.messages import messages
from coordinator.api.v3.quotas import quotas
from coordinator.api.v3.services import services
from coordinator.api.v3.site import site
from coordinator.api.v3.type_specs import type_specs
from coordinator.api.v3.types import types
from coordinator.api.version import negotiate
from tests.integration.apiserver import PASSWORD, running

TABLES = (types(), type_specs(), quotas(), messages(), services(), site(), *identity_resources())
ROUTES = [(resource, route) for resource in TABLES for route in resource.routes if route.method != "DELETE"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=20)
SECRET = "hunter2-hunter2"
CALM = settings(max_examples=6, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def site_and_token(tmp_path_factory):
    with running(tmp_path_factory.mktemp("fuzz"), failures_allowed=10_000, password_cache=600) as server:
        user = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"system": {"all": True}}}
        token = requests.post(f"{server.url}/identity/v3/auth/tokens", json={"auth": auth}, timeout=60)
        yield server.url, token.headers["X-Subject-Token"]


def likely(route, draw):
    """A body with the right key and fields of the right names, and whatever values."""
    fields = [field.alias or name for name, field in route.body.model_fields.items()] if route.body else ["x"]
    inner = draw(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON)))
    key = route.action or route.body_key
    return inner if key is None else {key: inner}


@pytest.mark.parametrize(("resource", "route"), ROUTES, ids=lambda item: getattr(item, "label", ""))
@CALM
@given(data=st.data())
def test_never_a_500(site_and_token, resource, route, data):
    url, token = site_and_token
    path = re.sub(r"\{\w+\}", lambda _: requests.utils.quote(data.draw(TEXT), safe=""), resource.full(route))
    query = data.draw(st.dictionaries(st.sampled_from([*route.query, "limit", "x"]), st.text(max_size=10), max_size=2))
    headers = {"X-Auth-Token": token, "OpenStack-API-Version": f"volume 3.{data.draw(st.integers(0, 71))}"}
    body = None if route.method == "GET" else likely(route, data.draw)
    answer = requests.request(route.method, url + path, params=query, json=body, headers=headers, timeout=60)
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("place", ["user", "identity", "auth", "token"])
def test_secrets_stay_away_from_answers(site_and_token, place):
    url, _ = site_and_token
    user = {"name": 7 if place == "user" else "admin", "password": SECRET}
    identity = {"methods": 3 if place == "identity" else ["password"], "password": {"user": user}}
    if place == "token":
        identity["token"] = {"id": [SECRET]}
    body = {"auth": {"identity": identity, **({"scope": 5} if place == "auth" else {})}}
    answer = requests.post(f"{url}/identity/v3/auth/tokens", data=json.dumps(body),
                           headers={"Content-Type": "application/json"}, timeout=60)  # fmt: skip
    assert answer.status_code == 400
    assert SECRET not in answer.text


@settings(max_examples=300)
@given(st.lists(st.text(max_size=30) | st.from_regex(r"volume [0-9a-z.]{1,8}", fullmatch=True), max_size=3))
def test_any_version_header(lines):
    try:
        found = negotiate(lines)
    except (VersionMalformed, VersionUnsupported):
        return
    assert 0 <= found.volume <= 71
