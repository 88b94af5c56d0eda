"""Where the data of a volume's image are taken from: a volume that is the image, what is kept of it, or its service."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from coordinator.images.info import ImageInfo
from coordinator.operations.accept import accept
from coordinator.operations.image_cache import ImageCache, Owner, is_hit
from coordinator.operations.new_volume import image_args
from coordinator.state import image_cache, operations
from coordinator.state.operations import Operation
from coordinator.state.tables.fleet import pools
from coordinator.state.tables.volumes import volumes
from tests.unit.coordinator.operations.support import REQUESTER, Site, site
from tests.unit.coordinator.operations.test_volume_workflows import create

OWNER = Owner("internal", "brickyard")
IMAGE = ImageInfo(
    id="i", name="n", status="active", owner="p1", disk_format="raw", container_format="bare", size=512, version="v",
    url="http://g/v2/images/i",
)  # fmt: skip


async def asked(here: Site, image: ImageInfo, volume_id: str, **steps: Any) -> Operation:
    """An operation that makes this volume of the image."""

    def begin(conn: Connection) -> Operation:
        made = accept(
            conn, REQUESTER, kind="create_volume", version=2, resource_type="volume", resource_id=volume_id,
            args={"image": image_args(image)},
        )  # fmt: skip
        found = operations.get(conn, made.id)
        assert found is not None
        return replace(found, steps={**found.steps, **steps})

    return await here.db.write(begin)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({}, {}),
        ({"disk_format": "qcow2"}, {}),
        ({"container_format": "compressed"}, {}),
        ({"encrypted": True}, {}),
        ({"owner": "somebody"}, {}),
        ({"owner": ""}, {}),
        ({}, {"host_id": "another"}),
        ({}, {"pool_id": "another"}),
        ({}, {"size": 2}),
        ({}, {"status": "in-use"}),
        ({}, {"encryption_format": "luks1"}),
        ({}, {"deleted": True}),
    ],
)
async def test_a_volume_that_is_the_image_is_cloned_where_all_fits(
    tmp_path: Path, change: dict[str, Any], moved: dict[str, Any]
) -> None:
    async with site(tmp_path) as here:
        held, row = await create(here), await create(here)
        values = {"host_id": row.host_id, "pool_id": row.pool_id, **moved}
        change_row = update(volumes).where(volumes.c.id == held.id).values(**values)
        await here.db.write(lambda conn: conn.execute(change_row) and None)
        operation = await asked(here, replace(IMAGE, backing=("gone", held.id), **change), row.id)
        cache = ImageCache(here.db, OWNER)
        place = replace(operation, steps={"place": {"state": "done", "result": {}}})
        taken = await here.db.write(lambda conn: cache.take(conn, place))
        assert taken == (None if change or moved else {"hit": held.id})


async def test_without_a_project_for_it_nothing_is_kept_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        await here.db.write(lambda conn: conn.execute(update(pools).values(reported={"image_cache": True})) and None)
        operation = await asked(here, IMAGE, row.id)
        cache, other = ImageCache(here.db), ImageCache(here.db, OWNER)
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert await here.db.read(lambda conn: cache.offered(conn, operation, row.pool_id)) is None
        assert caplog.text.count("images.internal_project is not set") == 1
        assert await here.db.read(lambda conn: other.offered(conn, operation, row.pool_id)) is not None


async def test_what_is_cloned_in_vain_again_and_again_leaves_and_is_fetched_anew(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        kept, row = await create(here), await create(here)
        place = {"state": "done", "result": {"cache": {"place": row.pool_id, "gib": 0, "count": 0}}}

        def keep(conn: Connection) -> None:
            image_cache.add(
                conn, volume_id=kept.id, place=row.pool_id, image_id="i", version="v", size=1, operation_id="o",
                ready=True,
            )  # fmt: skip

        await here.db.write(keep)
        cache = ImageCache(here.db, OWNER)
        for attempt in (1, 2):
            operation = await asked(here, IMAGE, row.id, place=place, clone={"state": "again", "attempt": attempt})
            taken = await here.db.write(lambda conn, of=operation: cache.take(conn, of))
            assert taken == {"hit": kept.id}
        operation = await asked(here, IMAGE, row.id, place=place, clone={"state": "again", "attempt": 3})
        taken = await here.db.write(lambda conn: cache.take(conn, operation))
        assert taken is not None
        assert taken["fill"] not in {kept.id, row.id}
        entry = await here.db.read(lambda conn: image_cache.get(conn, kept.id))
        assert entry is not None
        assert entry.leaving
        assert not is_hit(operation)
