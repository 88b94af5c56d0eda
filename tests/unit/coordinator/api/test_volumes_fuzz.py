"""Whatever is sent to the calls on volumes, the answer is never a 500."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from coordinator.api.brickyard import attachments as host_attachments
from coordinator.api.brickyard import issues, operations, repair
from coordinator.api.route import Route
from coordinator.api.v3 import (
    attachments,
    manage,
    metadata,
    snapshot_actions,
    snapshots,
    volume_actions,
    volume_connections,
    volume_images,
    volumes,
)
from tests.unit.coordinator.api.volumesite import Api, volume_api

TABLES = (
    volumes.resource(), volume_actions.resource(), volume_connections.resource(), volume_images.resource(),
    snapshot_actions.resource(), manage.resource(), *metadata.resources(), snapshots.resource(), attachments.resource(),
    operations.resource(), host_attachments.resource(), issues.resource(), repair.resource(),
)  # fmt: skip
MISSING = "99999999-2222-3333-4444-555555555555"
WORDS = ["", "x", "1", "-1", "0", "true", "null", "a" * 300, "é\x00\ud7ff", "%", "_", "'", '"', MISSING, "{'a': 1}",
         "gt:2026-01-01T00:00:00", "gt:0001-01-01T00:00:00+14:00", "lte:9999-12-31T23:59:59", "name:asc", "[", "9" * 30,
         "available", "error", "in-use", "\udc00"]  # fmt: skip
VALUES: list[Any] = [None, True, False, 0, 1, -1, 2**70, 1.5, 1e300, [], {}, [1], {"a": "b"}, {"a": None}, {"": ""},
                     {"host": "host-a"}, {"host": 1}, {"a": {"b": ["c"]}}]  # fmt: skip
FILTERS = ("name", "status", "metadata", "bootable", "created_at", "updated_at", "size", "id", "host", "project_id",
           "glance_metadata", "name~", "sort_key", "sort_dir", "offset", "consumes_quota", "volume_id")  # fmt: skip


def value(dice: random.Random, known: list[str]) -> Any:
    return dice.choice([*VALUES, *WORDS, *known])


def body(dice: random.Random, route: Route, known: list[str]) -> Any:
    names = [field.alias or name for name, field in route.body.model_fields.items()] if route.body else ["x"]
    inner: Any = {name: value(dice, known) for name in names if dice.random() < 0.5}
    if dice.random() < 0.1:
        inner = value(dice, known)
    key = route.action or route.body_key
    return inner if key is None else {key: inner}


async def known_ids(api: Api) -> list[str]:
    volume = await api.volume()
    other = await api.volume()
    snapshot = (await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume["id"]}})).body["snapshot"]
    attachment = (await api("POST", "/attachments", json={"attachment": {"volume_uuid": other["id"]}})).body
    await api.settled()
    operation = (await api("GET", "/brickyard/v1/operations?limit=1")).body["operations"][0]
    return [volume["id"], other["id"], snapshot["id"], attachment["attachment"]["id"], operation["id"]]


async def test_never_a_500(tmp_path: Path) -> None:
    dice = random.Random(2)
    some = [word for word in WORDS if word and "\udc00" not in word]
    async with volume_api(tmp_path) as api:
        known = await known_ids(api)
        for resource in TABLES:
            for route in resource.routes:
                if route.method == "DELETE":
                    continue
                for _ in range(40):
                    path = re.sub(
                        r"\{\w+\}", lambda _: quote(dice.choice([*known, *some]), safe=""), resource.full(route)
                    )
                    asked = dice.sample([*route.query, *FILTERS], dice.randint(0, 3))
                    query = urlencode({name: dice.choice([*some, *known]) for name in asked if name != "wait"})
                    given = body(dice, route, known) if route.method != "GET" else None
                    data = json.dumps(given) if given is not None else None
                    answer = await api(
                        route.method, f"{path.removeprefix('/v3')}?{query}", who=dice.choice(["root", "worker"]),
                        version=dice.randint(0, 71), data=data, headers={"Content-Type": "application/json"},
                    )  # fmt: skip
                    no_store = answer.status == 503 and "keeps images" in str(answer.body)
                    assert answer.status < 500 or no_store, (route.label, path, query, given, answer.body)
