"""Encrypted images whose secret lies at a Barbican alone: opened by the right of the one who calls, and copied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from coordinator.images.certificates import CertificateManager, Place
from coordinator.images.client import ImageClient
from coordinator.images.glance import Glance
from coordinator.images.settings import GlanceSettings
from tests.support import databases
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.test_volume_encryption import encrypted_type
from tests.unit.coordinator.api.volumesite import Api, volume_api

IMAGE, KEY = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
IMAGES = {
    "id": IMAGE, "status": "active", "disk_format": "raw", "container_format": "luks", "size": 1 << 20,
    "os_encrypt_format": "LUKSv1", "os_encrypt_key_id": KEY, "os_decrypt_size": str(1 << 20), "updated_at": "now",
}  # fmt: skip


class Cloud:
    """The log-in of this service, which must not be what a user's secret is read with."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def token(self, *, fresh: bool = False) -> str:
        raise AssertionError("the secret is the caller's to read")

    async def endpoint(self, types: tuple[str, ...], interface: str, region: str | None) -> str:
        raise AssertionError("the address is told")

    def session(self) -> ClientSession:
        return self._session

    async def close(self) -> None:
        await self._session.close()


@dataclass
class Barbican:
    """One secret, which `worker` alone may read; the image that it opens says `properties`, too."""

    type: str = "passphrase"
    broken: bool = False
    properties: dict[str, str] = field(default_factory=dict)

    async def about(self, request: web.Request) -> web.Response:
        return self._allowed(request) or web.json_response(
            {"secret_type": self.type, "content_types": {"default": "text/plain"}}
        )

    async def payload(self, request: web.Request) -> web.Response:
        return self._allowed(request) or web.Response(text="open sesame", content_type="text/plain")

    def _allowed(self, request: web.Request) -> web.Response | None:
        if self.broken:
            return web.Response(status=503)
        may = request.headers["X-Auth-Token"] == "worker" and request.match_info["id"] == KEY
        return None if may else web.Response(status=403)


@asynccontextmanager
async def at(folder: Path) -> AsyncIterator[tuple[Api, Barbican]]:
    app, barbican = web.Application(), Barbican()

    async def image(request: web.Request) -> web.Response:
        return web.json_response(IMAGES | barbican.properties)

    app.router.add_get("/v2/images/{id}", image)
    app.router.add_get("/v1/secrets/{id}", barbican.about)
    app.router.add_get("/v1/secrets/{id}/payload", barbican.payload)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    db = databases.fresh(folder / "empty.db")
    manager = CertificateManager(Place(url, "internal", None, 10), Cloud(ClientSession()))
    glance = Glance(GlanceSettings(url=url, auth="none"), db, manager=manager)
    try:
        async with volume_api(folder, others={ImageClient: glance}) as api:
            await encrypted_type(api)
            yield api, barbican
    finally:
        await glance.close()
        await manager.close()
        await runner.cleanup()
        db.close()


async def made(api: Api, who: str = "worker") -> tuple[int, Any]:
    wanted = {"size": 1, "imageRef": IMAGE, "volume_type": "secret"}
    answer = await api("POST", "/volumes", who=who, json={"volume": wanted})
    return answer.status, answer.body


async def test_a_volume_gets_a_copy_of_a_secret_that_its_maker_may_read(tmp_path: Path) -> None:
    async with at(tmp_path) as (api, _):
        status, body = await made(api)
        assert status == 202, body
        await api.settled()
        shown = await api("GET", f"/volumes/{body['volume']['id']}", who="root")
        key_id = shown.body["volume"]["encryption_key_id"]
        secret = await api.here.db.read(lambda conn: api.here.keys.get(conn, key_id))
        assert (secret.type, secret.value, secret.project_id) == ("passphrase", b"open sesame", P1)
        assert key_id != KEY


async def test_a_secret_that_the_caller_may_not_read_or_is_no_key_is_refused(tmp_path: Path) -> None:
    async with at(tmp_path) as (api, barbican):
        status, body = await made(api, who="other")
        assert (status, "can not be used" in str(body)) == (400, True)
        barbican.type = "certificate"
        assert (await made(api))[0] == 400
        barbican.broken = True
        assert (await made(api))[0] == 503


async def test_the_copy_for_a_new_content_goes_when_that_has_ended(tmp_path: Path) -> None:
    async with at(tmp_path) as (api, _):
        volume = await api.volume(volume_type="secret")
        answer = await api.act(volume["id"], "os-reimage", {"image_id": IMAGE})
        assert answer.status == 202, answer.body
        kept = await api.here.db.read(lambda conn: api.here.keys.listing(conn, None))
        assert len(kept) <= 2
        await api.settled()
        [own] = await api.here.db.read(lambda conn: api.here.keys.listing(conn, None))
        assert own.id == volume["encryption_key_id"]


@pytest.mark.parametrize(("name", "value"), [("os_encrypt_format", "GPG"), ("os_decrypt_size", "much")])
async def test_what_no_volume_can_come_of_is_refused_before_one_is_begun(tmp_path: Path, name: str, value: str) -> None:
    async with at(tmp_path) as (api, barbican):
        barbican.properties[name] = value
        status, body = await made(api)
        assert (status, name in str(body)) == (400, True)
        assert (await api("GET", "/volumes")).body["volumes"] == []
