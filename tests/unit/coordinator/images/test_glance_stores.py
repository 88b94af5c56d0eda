"""The store of the image service that a type names: known and writable, or refused with words when it is set."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from coordinator.images.client import ImageClient
from coordinator.images.errors import GlanceAway, NoSuchStore
from coordinator.images.glance import Glance
from tests.unit.coordinator.api.volumesite import volume_api
from tests.unit.coordinator.images.served import glance_of

SPEC = "image_service:store_id"
# As a Glance tells them: of a store that can only be read by a word, not a boolean.
WEB = {"id": "web", "description": "", "read-only": "true"}
FILES, CHEAP = {"id": "files", "default": "true"}, {"id": "cheap"}


@dataclass
class Stores:
    """What a Glance answers; None: it has one store alone and no such call."""

    told: list[dict[str, Any]] | None = None
    status: int = 200

    async def answer(self, request: web.Request) -> web.Response:
        if self.told is None:
            return web.Response(text="<html>404</html>", content_type="text/html", status=404)
        return web.json_response({"stores": self.told}, status=self.status)


def glance_with(stores: Stores, folder: Path) -> AbstractAsyncContextManager[Glance]:
    app = web.Application()
    app.router.add_get("/v2/info/stores", stores.answer)
    return glance_of(app, folder)


async def test_only_a_store_that_can_be_written_to_is_one(tmp_path: Path) -> None:
    stores = Stores([FILES, WEB, CHEAP, {"id": "other", "read-only": True}])
    async with glance_with(stores, tmp_path) as glance:
        for known in ("files", "cheap"):
            await glance.check_store(known)
        for wrong in ("web", "other", "nosuch", "", "None"):
            with pytest.raises(NoSuchStore, match="it has cheap, files") as refused:
                await glance.check_store(wrong)
            assert refused.value.status == 400
        stores.told = None
        with pytest.raises(NoSuchStore, match=r"no store files that can be written to\."):
            await glance.check_store("files")
        stores.told, stores.status = [FILES], 503
        with pytest.raises(GlanceAway):
            await glance.check_store("files")


async def test_a_store_that_is_none_is_refused_when_it_is_set_and_nothing_is_kept_of_it(tmp_path: Path) -> None:
    stores = Stores([FILES, WEB])
    async with (
        glance_with(stores, tmp_path) as glance,
        volume_api(tmp_path, others={ImageClient: glance}) as api,
    ):
        made = await api("POST", "/types", who="root", json={"volume_type": {"name": "t", "extra_specs": {"a": "b"}}})
        specs = f"/types/{made.body['volume_type']['id']}/extra_specs"
        for wrong in ("web", "nosuch"):
            wanted = {SPEC: wrong, "c": "d"}
            kind = {"name": "refused", "extra_specs": wanted}
            for method, path, body in (
                ("POST", "/types", {"volume_type": kind}),
                ("POST", specs, {"extra_specs": wanted}),
                ("PUT", f"{specs}/{SPEC}", {SPEC: wrong}),
            ):
                answer = await api(method, path, who="root", json=body)
                assert answer.status == 400, answer.body
                assert f"no store {wrong} that can be written to; it has files." in str(answer.body)
        assert (await api("GET", specs, who="root")).body["extra_specs"] == {"a": "b"}
        names = [one["name"] for one in (await api("GET", "/types", who="root")).body["volume_types"]]
        assert "refused" not in names
        assert (await api("PUT", f"{specs}/{SPEC}", who="root", json={SPEC: "files"})).status == 200
        # Placing knows nothing of it.
        kind = {"name": "only", "extra_specs": {SPEC: "files"}}
        assert (await api("POST", "/types", who="root", json={"volume_type": kind})).status == 200
        assert (await api.volume(volume_type="only"))["status"] == "available"
