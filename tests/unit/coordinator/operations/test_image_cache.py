"""The image cache on rows and a real back end: what is kept is not altered, who waits is woken, what is gone leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import Connection, Row

from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.images.client import ImageClient, LocalImages
from coordinator.images.glance import Glance
from coordinator.images.settings import GlanceSettings
from coordinator.lifecycle.table import NEW
from coordinator.lifecycle.volume import VOLUME
from coordinator.operations.accept import accept
from coordinator.operations.cache_keeper import CacheKeeper
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.image_cache import ImageCache, Owner
from coordinator.state import image_cache, operations, volumes
from coordinator.state.errors import CachedImage, TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.transition import move
from tests.unit.coordinator.operations.support import REQUESTER, Site, site
from tests.unit.coordinator.operations.test_volume_workflows import create, ended, path_of

OWNER = Owner("internal", "brickyard")
ADMIN = Caller("p1", is_admin=True)


async def kept(here: Site, image_id: str, version: str | None, *, ready: bool = True, operation_id: str = "o") -> str:
    """A cached volume of the image."""
    row = await create(here)

    def keep(conn: Connection) -> None:
        volumes.set_values(conn, row.id, use_quota=False, project_id=OWNER.project_id)
        image_cache.add(
            conn, volume_id=row.id, place=row.pool_id, image_id=image_id, version=version or "", size=1,
            operation_id=operation_id, ready=ready,
        )  # fmt: skip

    await here.db.write(keep)
    return str(row.id)


async def image(here: Site) -> tuple[str, str | None]:
    """An active image of the catalog, and its version."""

    def make(conn: Connection) -> tuple[str, str | None]:
        given = {"disk_format": "raw", "container_format": "bare"}
        image_id = catalog.create(conn, ADMIN, given).row.id
        for event in ("upload", "uploaded"):
            move(conn, "image", image_id, event)
        return image_id, catalog.describe(catalog.show(conn, ADMIN, image_id)).version

    return await here.db.write(make)


async def left(here: Site, volume_id: str) -> Row[Any] | None:
    """Its row in the cache."""
    return await here.db.read(lambda conn: image_cache.get(conn, volume_id))


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await is_so():
            await asyncio.sleep(0.01)


ALTERING = [rule for rule in VOLUME.rules if rule.alters]


async def test_what_is_kept_can_be_deleted_but_not_altered(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        volume_id = await kept(here, "i", "v")
        plain = await create(here)
        assert len(ALTERING) > 10
        for rule in ALTERING:
            assert "available" in rule.sources
            with pytest.raises(CachedImage, match="kept by the image cache") as refused:
                await here.db.write(lambda conn, event=rule.event: move(conn, "volume", volume_id, event))
            assert volume_id in refused.value.remedy
            with pytest.raises(TransitionRefused):
                await here.db.write(_and_back(plain.id, rule.event))
        operation, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, volume_id), None))
        row = await here.db.read(lambda conn: volumes.get(conn, volume_id))
        assert (await ended(here, operation)).state == "done"
        assert not path_of(here, row).exists()
        assert await left(here, volume_id) is None


def _and_back(volume_id: str, event: str) -> Callable[[Connection], None]:
    def tried(conn: Connection) -> None:
        move(conn, "volume", volume_id, event)
        raise TransitionRefused(noun="volume", id="", status="", event=event, allowed="", help="undo it")

    return tried


def test_what_makes_a_volume_alters_nothing() -> None:
    assert all(rule.sources != (NEW,) for rule in ALTERING)


@pytest.mark.parametrize("how", ["ready", "dropped"])
async def test_who_waits_is_woken_when_it_is_filled_or_will_not_be(tmp_path: Path, how: str) -> None:
    async with site(tmp_path) as here:
        filler = await here.db.write(lambda conn: _operation(conn, {}))
        volume_id = await kept(here, "i", "v", ready=False, operation_id=filler.id)
        row = await here.db.read(lambda conn: volumes.get(conn, volume_id))
        args = {"image": {"id": "i", "version": "v"}}
        place = {"place": {"state": "done", "result": {"cache": {"place": row.pool_id}}}}
        waits = await here.db.write(lambda conn: _operation(conn, args))
        waits.steps.update(place)
        turn = asyncio.ensure_future(ImageCache(here.db, OWNER).turn(waits))
        assert (await asyncio.wait([turn], timeout=0.2))[0] == set()

        def end(conn: Connection) -> None:
            if how == "ready":
                image_cache.put(conn, volume_id, ready=True)
            else:
                image_cache.drop(conn, volume_id)

        rung = here.db.new_in_cache.count
        await here.db.write(lambda conn: image_cache.used(conn, volume_id))
        assert here.db.new_in_cache.count == rung
        await here.db.write(end)
        assert here.db.new_in_cache.count == rung + 1
        await asyncio.wait_for(turn, 60)


def _operation(conn: Connection, args: dict[str, Any]) -> Operation:
    made = accept(conn, REQUESTER, kind="create_volume", version=2, resource_type="volume", resource_id="x", args=args)
    found = operations.get(conn, made.id)
    assert found is not None
    return found


async def test_what_the_catalog_has_no_more_or_otherwise_leaves_the_cache(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        (here_id, version), (other_id, _) = await image(here), await image(here)
        good, old = await kept(here, here_id, version), await kept(here, other_id, "an older one")
        gone = await kept(here, "00000000-0000-4000-8000-000000000000", "v")
        keeper = CacheKeeper(here.engine, OWNER, LocalImages(here.db))
        await keeper.look()
        assert await keeper.work() == 2
        for volume_id in (old, gone):
            await until(lambda volume_id=volume_id: _is_gone(here, volume_id))
        found = await left(here, good)
        assert found is not None
        assert not found.leaving


async def _is_gone(here: Site, volume_id: str) -> bool:
    return await left(here, volume_id) is None


async def test_a_glance_says_what_is_gone_and_its_silence_says_nothing(tmp_path: Path) -> None:
    said: dict[str, Any] = {}

    async def show(request: web.Request) -> web.Response:
        found = said[request.match_info["id"]]
        return web.json_response(found if isinstance(found, dict) else {}, status=found if found in (404, 503) else 200)

    app = web.Application()
    app.router.add_get("/v2/images/{id}", show)
    runner = web.AppRunner(app)
    await runner.setup()
    address = web.TCPSite(runner, "127.0.0.1", 0)
    await address.start()
    port = runner.addresses[0][1]
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(4)]
    for image_id in ids:
        said[image_id] = {"id": image_id, "status": "active", "updated_at": "1", "os_hash_value": "h"}
    async with site(tmp_path) as here:
        glance = Glance(GlanceSettings(url=f"http://127.0.0.1:{port}", auth="none"), here.db)
        client: ImageClient = glance
        version = await client.version(ids[0])
        holds = {image_id: await kept(here, image_id, version) for image_id in ids}
        keeper = CacheKeeper(here.engine, OWNER, client, interval_s=600)
        await keeper.look()
        assert [await left(here, volume_id) is not None for volume_id in holds.values()] == [True] * 4
        said |= {ids[0]: 404, ids[2]: 503, ids[3]: 404}
        said[ids[1]] = {**said[ids[1]], "status": "deactivated"}
        # Looked at not long ago, and asked for again only where a caller was refused.
        running = asyncio.ensure_future(keeper.run())
        for image_id in ids[:3]:
            keeper.doubt(image_id)
        for image_id in ids[:2]:
            await until(lambda image_id=image_id: _is_gone(here, holds[image_id]))
        assert [await left(here, holds[image_id]) is not None for image_id in ids[2:]] == [True, True]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await glance.close()
    await runner.cleanup()
