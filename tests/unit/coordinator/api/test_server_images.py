"""An image that Nova made of a server with volumes has no bytes: its volume is made of the snapshot that it names."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from agent.base.ids import new_id
from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.state.tables.fleet import hosts
from coordinator.state.transition import move
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

GONE = "99999999-2222-3333-4444-555555555555"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with volume_api(tmp_path) as made:
        yield made


async def image(api: Api, mapping: Any, size: int = 0) -> str:
    """As Nova registers it: `raw`, and open to everybody here."""
    image_id, text = new_id(), mapping if isinstance(mapping, str) else json.dumps(mapping)

    def fill(conn: Connection) -> None:
        conn.execute(update(hosts).values(keeps_images=True, reachable=True))
        values = {
            "disk_format": "raw",
            "container_format": "bare",
            "visibility": "public",
            "block_device_mapping": text,
        }
        catalog.create(conn, Caller(P1, is_admin=True), values, image_id=image_id)
        move(conn, "image", image_id, "upload", host_id="host-a")
        move(conn, "image", image_id, "uploaded", size=size)

    await api.here.db.write(fill)
    return image_id


def disk(snapshot_id: str, index: Any = 0, **more: Any) -> dict[str, Any]:
    """One entry, with what Nova writes beside."""
    return {"source_type": "snapshot", "destination_type": "volume", "boot_index": index, "snapshot_id": snapshot_id,
            "delete_on_termination": False, "device_name": "/dev/vda", "tag": None, **more}  # fmt: skip


async def snapshot(api: Api, volume_id: str) -> str:
    made = await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume_id, "force": True}})
    assert made.status == 202, made.body
    await api.settled()
    return str(made.body["snapshot"]["id"])


async def create(api: Api, image_id: str, **more: Any) -> Answered:
    return await api("POST", "/volumes", json={"volume": {"imageRef": image_id}}, **more)


async def test_the_volume_is_made_of_the_snapshot_of_the_first_disk(api: Api) -> None:
    types = await api("POST", "/types", who="root", json={"volume_type": {"name": "quick"}})
    assert types.status == 200
    source = await api.volume(size=2, volume_type="quick")
    taken = await snapshot(api, source["id"])
    other = await snapshot(api, (await api.volume())["id"])
    boot = await image(api, [disk(other, 1), {"source_type": "blank", "boot_index": None}, disk(taken)])
    answer = await create(api, boot, version=46)
    assert answer.status == 202, answer.body
    await api.settled()
    made = (await api("GET", f"/volumes/{answer.body['volume']['id']}")).body["volume"]
    assert {name: made[name] for name in ("status", "size", "snapshot_id", "volume_type")} == {
        "status": "available", "size": 2, "snapshot_id": taken, "volume_type": "quick"}  # fmt: skip
    assert "volume_image_metadata" not in made


async def test_before_3_46_it_is_refused_with_a_remedy_and_nothing_is_made(api: Api) -> None:
    taken = await snapshot(api, (await api.volume())["id"])
    boot = await image(api, [disk(taken)])
    before = len((await api("GET", "/volumes")).body["volumes"])
    answer = await create(api, boot, version=45)
    assert answer.status == 400
    assert taken in answer.body["badRequest"]["message"]
    assert "3.46" in answer.body["badRequest"]["message"]
    assert len((await api("GET", "/volumes")).body["volumes"]) == before


@pytest.mark.parametrize("version", [45, 46])
async def test_a_snapshot_that_is_gone_or_another_projects_is_not_found(api: Api, version: int) -> None:
    taken = await snapshot(api, (await api.volume())["id"])
    theirs, gone = await image(api, [disk(taken)]), await image(api, [disk(GONE)])
    for image_id, who in ((gone, "worker"), (theirs, "other")):
        answer = await create(api, image_id, version=version, who=who)
        assert answer.status == 404
        assert "Nova specific image is found" in answer.body["itemNotFound"]["message"]
    assert (await api("GET", "/volumes", who="other")).body["volumes"] == []


@pytest.mark.parametrize(
    "mapping",
    ["", "no json", "[[[", "{}", "7", '["x"]', [disk(GONE, 1)], [disk(GONE, False)],
     [{**disk(GONE), "source_type": "image"}],
     [{**disk(GONE), "snapshot_id": 7}], "[" * 60_000],
)  # fmt: skip
async def test_what_names_no_snapshot_to_boot_from_is_an_image_like_others(api: Api, mapping: Any) -> None:
    plain = await image(api, mapping, size=512)
    answer = await create(api, plain)
    assert answer.status == 400, "as for every image a size is needed"
    assert "size must be given" in answer.body["badRequest"]["message"]


async def test_before_3_46_an_image_with_data_of_its_own_is_used_whatever_it_names(api: Api) -> None:
    answer = await create(api, await image(api, [disk(GONE)], size=512), version=45)
    assert (answer.status, "size must be given" in answer.body["badRequest"]["message"]) == (400, True)
