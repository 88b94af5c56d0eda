"""Images that were registered at a Glance: withdrawn where the call died, and their keys gone when they are."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.base.ids import new_id
from coordinator.images.errors import GlanceAway
from coordinator.images.glance import Glance
from coordinator.images.settings import GlanceSettings
from coordinator.keys.errors import SecretInUse, SecretNotFound
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations.registered_images import RegisteredImages
from coordinator.state import registered
from coordinator.state.database import Database
from tests.support import databases

AT_ONCE = datetime.timedelta(seconds=-1)


@dataclass
class Here:
    """`images` is what the Glance has."""

    db: Database
    keys: KeyStore
    keeper: RegisteredImages
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: bool = False
    fails_at: str = ""
    hides: bool = False
    """It shows this site not all images, or is none but a proxy."""

    def note(self, *, key: bool = True, status: str = "queued", operation: str | None = None, **more: Any) -> Any:
        """An image and its key, if it has one."""
        image_id = new_id()
        self.images[image_id] = {"id": image_id, "status": status, **more}

        def write(conn: Any) -> str | None:
            made = self.keys.generate(conn, project_id="p", user_id="u") if key else None
            registered.note(conn, image_id, made)
            if operation is not None:
                assert registered.accepted(conn, image_id, operation)
            return made

        return image_id, self.db.write_now(write)

    def has_key(self, key_id: str) -> bool:
        try:
            self.db.read_now(lambda conn: self.keys.get(conn, key_id))
        except SecretNotFound:
            return False
        return True

    async def tasks(self) -> web.Response:
        return web.json_response({} if self.hides else {"tasks": []}, status=403 if self.hides else 200)

    async def answer(self, request: web.Request) -> web.Response:
        image_id = request.match_info["id"]
        if self.broken or image_id == self.fails_at:
            return web.json_response({}, status=503)
        if self.hides or image_id not in self.images:
            return web.json_response({}, status=404)
        image = self.images[image_id]
        if request.method == "PATCH":
            image["protected"] = False
        if request.method == "DELETE":
            if image.get("protected"):
                return web.json_response({}, status=403)
            del self.images[image_id]
            return web.Response(status=204)
        return web.json_response(image)


@asynccontextmanager
async def at(folder: Path, given_up: datetime.timedelta = AT_ONCE) -> AsyncIterator[Here]:
    app, db, keys = web.Application(), databases.fresh(folder / "state.db"), KeyStore(Kek(b"k" * 32))
    runner = web.AppRunner(app)
    found: list[Here] = []

    async def answer(request: web.Request) -> web.Response:
        return await found[0].answer(request)

    async def tasks(request: web.Request) -> web.Response:
        return await found[0].tasks()

    app.router.add_route("*", "/v2/images/{id}", answer)
    app.router.add_get("/v2/tasks", tasks)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    glance = Glance(GlanceSettings(url=f"http://127.0.0.1:{runner.addresses[0][1]}", auth="none"), db)
    found.append(Here(db, keys, RegisteredImages(db, glance, keys, given_up=given_up)))
    try:
        yield found[0]
    finally:
        await glance.close()
        db.close()
        await runner.cleanup()


async def test_what_a_call_that_died_has_registered_is_withdrawn_with_its_key(tmp_path: Path) -> None:
    async with at(tmp_path) as here:
        plain, _ = here.note(key=False)
        sealed, key = here.note(protected=True)
        never, other = here.note()
        del here.images[never]  # it died before the service was asked
        assert await here.keeper.work() == 3
        assert not {plain, sealed} & here.images.keys()
        assert not here.has_key(key)
        assert not here.has_key(other)
        assert await here.keeper.work() == 0
        assert not here.db.write_now(lambda conn: registered.accepted(conn, sealed, "o"))


async def test_a_call_that_may_be_at_it_is_left_alone(tmp_path: Path) -> None:
    async with at(tmp_path, datetime.timedelta(minutes=10)) as here:
        image, key = here.note()
        assert await here.keeper.work() == 0
        assert image in here.images
        assert here.has_key(key)


async def test_a_key_stays_as_long_as_its_image_whatever_is_said_of_that(tmp_path: Path) -> None:
    async with at(tmp_path) as here:
        image, key = here.note(status="active", operation="ended")
        for status in ("active", "deactivated"):
            here.images[image]["status"] = status
            assert await here.keeper.work() == 0
        with pytest.raises(SecretInUse, match=image):
            here.db.write_now(lambda conn: here.keys.discard(conn, key))
        here.broken = True
        with pytest.raises(GlanceAway):
            await here.keeper.work()
        assert here.has_key(key)
        here.broken = False
        del here.images[image]
        assert await here.keeper.work() == 1
        assert not here.has_key(key)


async def test_data_that_somebody_gave_it_are_not_withdrawn(tmp_path: Path) -> None:
    async with at(tmp_path) as here:
        image, key = here.note(status="active")
        assert await here.keeper.work() == 0
        assert image in here.images
        assert here.has_key(key)


async def test_an_image_that_its_service_fails_at_does_not_keep_the_others(tmp_path: Path) -> None:
    async with at(tmp_path) as here:
        here.fails_at, _ = here.note()
        other, key = here.note()
        for _ in range(2):
            with pytest.raises(GlanceAway):
                await here.keeper.work()
        assert other not in here.images
        assert not here.has_key(key)


async def test_a_404_of_who_hides_images_is_no_word_on_a_key(tmp_path: Path) -> None:
    """A proxy whose Glance is away, or a Glance where this site is no administrator any more."""
    async with at(tmp_path) as here:
        image, key = here.note(status="active", operation="ended")
        begun, other = here.note()
        here.hides = True
        assert await here.keeper.work() == 0
        assert here.has_key(key)
        assert here.has_key(other)
        here.hides = False
        assert await here.keeper.work() == 1
        assert here.has_key(key)
        assert image in here.images
        assert begun not in here.images
