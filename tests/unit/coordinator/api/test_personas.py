"""Who may call what, asked of every route over HTTP: a reader changes nothing, scopes are kept apart where enforced."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.api.resources import all_resources
from coordinator.api.route import V3
from coordinator.identity.policy import Policy
from tests.unit.coordinator.api.volumesite import volume_api

NOBODY = "11111111-1111-4111-8111-111111111111"
ONLY_LOOKS = {"os-show_image_metadata"}


async def test_a_reader_looks_and_changes_nothing(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume(name="first"))["id"]
        before = (await api("GET", f"/volumes/{volume}")).body
        routes = [route for resource in all_resources() if resource.prefix == V3 for route in resource.routes]
        assert len(routes) > 100
        for route in routes:
            path = re.sub(r"\{[a-z_]+\}", NOBODY, route.path.replace("{volume_id}", volume))
            body = {"json": {route.action: None} if route.action else {}} if route.method in {"POST", "PUT"} else {}
            answer = await api(route.method, path, who="looker", **body)
            if route.method == "GET" or route.action in ONLY_LOOKS:
                assert answer.status in {200, 300, 403, 404}, (path, answer.body)
            else:
                assert answer.status in {403, 404}, (route.method, path, route.action, answer.body)
        assert (await api("GET", f"/volumes/{volume}")).body == before


async def test_scopes_that_are_enforced(tmp_path: Path) -> None:
    async with volume_api(tmp_path, policy=Policy.builtin(scoped=True)) as api:
        volume = (await api.volume())["id"]
        new_type = {"json": {"volume_type": {"name": "gold"}}}
        for who, method, path, more, status in (
            ("system", "GET", "/os-services", {}, 200),
            ("system", "GET", "/scheduler-stats/get_pools", {}, 200),
            ("system", "POST", "/types", new_type, 200),
            ("system", "GET", "/types", {}, 200),
            ("system", "GET", "/volumes", {}, 403),
            ("system", "GET", f"/volumes/{volume}", {}, 403),
            ("system", "DELETE", f"/volumes/{volume}", {}, 403),
            ("root", "GET", "/os-services", {}, 403),
            ("root", "POST", "/types", new_type, 403),
            ("root", "GET", "/types", {}, 200),
            ("root", "GET", "/volumes/detail?all_tenants=1", {}, 200),
            ("worker", "GET", "/volumes", {}, 200),
            ("looker", "GET", "/volumes", {}, 200),
            ("looker", "DELETE", f"/volumes/{volume}", {}, 403),
            ("root", "DELETE", f"/volumes/{volume}?force=True", {}, 202),
        ):
            answer = await api(method, path, who=who, **more)
            assert answer.status == status, (who, method, path, answer.body)
        await api.settled()
