"""A volume of the site as the data of an image in a Glance: in which store, and what is done once stays so."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from coordinator.images.errors import GlanceRefuses
from coordinator.images.glance import Glance
from coordinator.images.settings import GlanceSettings, ImagesSection
from coordinator.operations.upload_volume import inherited
from tests.support import databases
from tests.unit.coordinator.images.served import glance_of

IMAGE, VOLUME = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


@dataclass
class Service:
    """A small one that speaks the words of Glance which are asked for."""

    stores: Any = None
    refuses: int = 0
    newer: bool = False
    """It has calls of their own for locations; `takes`: whether its own work on one succeeds, at the third look."""
    takes: bool = True
    asked: int = 0
    wanted: str = ""
    looks: int = 0
    image: dict[str, Any] = field(default_factory=lambda: {"id": IMAGE, "status": "queued", "locations": []})

    async def show(self, request: web.Request) -> web.Response:
        self.looks += 1
        if self.wanted and self.looks >= 3:
            if self.takes:
                self.image["locations"].append({"url": self.wanted, "metadata": {}})
                self.image["status"] = "active"
            self.wanted = ""
            del self.image["os_glance_import_task"]
        hidden = {"locations"} if self.newer else set()
        return web.json_response({key: value for key, value in self.image.items() if key not in hidden})

    async def locations(self, request: web.Request) -> web.Response:
        if not self.newer:
            return web.json_response({}, status=404)
        if request.method == "GET":
            return web.json_response(self.image["locations"])
        self.asked += 1
        if self.image["status"] != "queued" or "os_glance_import_task" in self.image:
            return web.json_response({"message": "prior operation"}, status=409)
        self.wanted, self.looks = (await request.json())["url"], 0
        self.image["os_glance_import_task"] = "t"
        return web.json_response({}, status=202)

    async def change(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/openstack-images-v2.1-json-patch"
        [change] = json.loads(await request.text())
        if self.refuses:
            return web.json_response({"message": "no"}, status=self.refuses)
        self.image["locations"].append(change["value"])
        return web.json_response({**self.image, "status": "active"})

    async def listing(self, request: web.Request) -> web.Response:
        if self.stores is None:
            return web.json_response({}, status=404)
        return web.json_response({"stores": self.stores})


@pytest.fixture
def service() -> Service:
    return Service()


async def added(service: Service, folder: Path, store: str | None = None, times: int = 1) -> tuple[bool, list[Any]]:
    app = web.Application()
    app.router.add_get("/v2/images/{id}", service.show)
    app.router.add_patch("/v2/images/{id}", service.change)
    app.router.add_route("*", "/v2/images/{id}/locations", service.locations)
    app.router.add_get("/v2/info/{rest:.*}", service.listing)
    async with glance_of(app, folder) as glance:
        for _ in range(times):
            taken = await glance.add_volume(IMAGE, VOLUME, store)
    return taken, service.image["locations"]


FILES, BLOCK = {"id": "files", "type": "file", "default": True}, {"id": "block", "type": "cinder"}
OTHER = {"id": "other", "type": "cinder", "default": "true"}


@pytest.mark.parametrize(
    ("stores", "wanted", "chosen"),
    [
        (None, None, ""),
        (None, "block", None),
        ([FILES], None, None),
        ([FILES, BLOCK], None, "block"),
        ([FILES, BLOCK], "block", "block"),
        ([FILES, BLOCK], "files", None),
        ([BLOCK, OTHER], None, "other"),
        ([BLOCK, OTHER], "nosuch", None),
    ],
)
async def test_the_store_of_the_type_wins_else_one_of_volumes(
    service: Service, tmp_path: Path, stores: Any, wanted: str | None, chosen: str | None
) -> None:
    service.stores = stores
    taken, places = await added(service, tmp_path, wanted)
    assert taken == (chosen is not None)
    if chosen is None:
        assert places == []
    elif chosen:
        assert places == [{"url": f"cinder://{chosen}/{VOLUME}", "metadata": {"store": chosen}}]
    else:
        assert places == [{"url": f"cinder://{VOLUME}", "metadata": {}}]


async def test_asked_again_it_is_there_once_and_a_refusal_is_an_answer(service: Service, tmp_path: Path) -> None:
    service.stores = [BLOCK]
    taken, places = await added(service, tmp_path, times=2)
    assert (taken, len(places)) == (True, 1)
    service.image["locations"], service.refuses = [], 403
    assert await added(service, tmp_path) == (False, [])


async def test_a_newer_one_takes_it_by_its_own_call_and_is_waited_for(service: Service, tmp_path: Path) -> None:
    service.stores, service.newer = [BLOCK], True
    url = f"cinder://block/{VOLUME}"
    taken, places = await added(service, tmp_path, times=2)
    assert (taken, service.asked, [each["url"] for each in places]) == (True, 1, [url])
    # It was at it already when it was asked, as after a kill.
    service.image |= {"status": "queued", "locations": [], "os_glance_import_task": "t"}
    service.wanted, service.looks = url, 0
    assert (await added(service, tmp_path))[0]
    assert service.image["status"] == "active"
    # Its own work fails, or it has other data by now.
    service.image |= {"status": "queued", "locations": []}
    service.takes = False
    assert not (await added(service, tmp_path))[0]
    service.image |= {"status": "active", "locations": [{"url": "file:///x"}]}
    assert not (await added(service, tmp_path))[0]


def test_what_a_glance_notes_for_itself_is_not_remembered_and_not_sent_to_one(tmp_path: Path) -> None:
    """Glance refuses an image that is registered with such names."""
    db = databases.fresh(tmp_path / "state.db")
    noted = {"os_glance_import_task": "", "os_glance_failed_import": "web"}
    found = Glance(GlanceSettings(url="http://g", auth="none"), db).describe({"id": IMAGE, "os_type": "linux", **noted})
    db.close()
    assert found.properties == {"os_type": "linux", "image_id": IMAGE, "image_name": ""}
    assert inherited({**found.properties, **noted}) == {"os_type": "linux"}


async def test_an_encrypted_volume_is_bare_where_the_glance_does_not_know_luks(tmp_path: Path) -> None:
    """Its default has no container format `luks`, and it refuses by a page of HTML."""
    page = (
        "<html>\n <head>\n  <title>400 Bad Request</title>\n </head>\n <body>\n  <h1>400 Bad Request</h1>\n  {}<br />"
    )
    asked = []

    async def create(request: web.Request) -> web.Response:
        values = await request.json()
        asked.append(values["container_format"])
        if values["container_format"] != "bare" or values["name"] == "x":
            text = page.format("Invalid container format &#x27;luks&#x27; for image.")
            return web.Response(text=text, content_type="text/html", status=400)
        return web.json_response({"id": IMAGE, **values}, status=201)

    app = web.Application()
    app.router.add_post("/v2/images", create)
    async with glance_of(app, tmp_path) as glance:
        values = {"name": "sealed", "container_format": "luks", "os_encrypt_format": "LUKSv1"}
        made = await glance.create(values, None)
        assert (made["container_format"], made["os_encrypt_format"], asked) == ("bare", "LUKSv1", ["luks", "bare"])
        with pytest.raises(GlanceRefuses) as refused:
            await glance.create({**values, "name": "x"}, None)
        assert str(refused.value).startswith("The image service refuses: Invalid container format 'luks' for image.")
        assert refused.value.status == 400


def test_settings_that_do_not_fit_together_are_refused() -> None:
    glance = {"url": "http://g", "auth": "none", "upload_clones": True}
    with pytest.raises(ValidationError, match="direct_url_schemes"):
        ImagesSection.model_validate({"service": "glance", "glance": glance})
    glance |= {"direct_url_schemes": ["cinder"], "upload_clones_internal": True}
    with pytest.raises(ValidationError, match="internal_project"):
        ImagesSection.model_validate({"service": "glance", "glance": glance})
    ImagesSection.model_validate({"service": "glance", "glance": glance, "internal_project": "p"})
