"""Images that the site fetches itself from a web server: by the real command, by rule, and without telling anybody."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.imageserver import Server, image_server

IMAGES = "/image/v2/images"
DATA = os.urandom(3 << 20)
CANARY = "signature-canary-9f31"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with image_server(tmp_path, networks=("127.0.0.0/8",)) as made:
        yield made


@asynccontextmanager
async def files(**answers: Any) -> AsyncIterator[str]:
    async def give(request: web.Request) -> web.Response:
        found = answers.get(request.match_info["name"])
        return found() if callable(found) else web.Response(status=404) if found is None else web.Response(body=found)

    app = web.Application()
    app.router.add_get("/{name}", give)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _queued(session: Any, **values: Any) -> str:
    body = {"name": "disk", "disk_format": "raw", "container_format": "bare", **values}
    async with session.post(IMAGES, json=body) as answer:
        return str((await answer.json())["id"])


async def _import(session: Any, image_id: str, url: Any, **more: Any) -> int:
    body = {"method": {"name": "web-download", "uri": url, **more}}
    async with session.post(f"{IMAGES}/{image_id}/import", json=body) as answer:
        return int(answer.status)


async def _ended(session: Any, image_id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{IMAGES}/{image_id}") as answer:
                found: dict[str, Any] = await answer.json()
            if found["status"] != "saving":
                return found
            await asyncio.sleep(0.05)


@pytest.mark.clients
async def test_by_the_real_command(server: Server) -> None:
    async with files(disk=DATA) as url, server.session() as session:
        image_id = await _queued(session)
        words = ("image", "import", "--method", "web-download", "--uri", f"{url}/disk", "disk")
        code, _, err = await server.openstack(*words)
        assert code == 0, err
        found = await _ended(session, image_id)
        assert (found["status"], found["size"]) == ("active", len(DATA))
        assert found["os_hash_value"] == hashlib.sha256(DATA).hexdigest()
        async with session.get(f"{IMAGES}/{image_id}/file") as answer:
            assert await answer.read() == DATA
        async with session.get("/image/v2/info/import") as answer:
            assert (await answer.json())["import-methods"]["value"] == ["web-download"]


async def test_a_checksum_that_is_known_is_proven(server: Server) -> None:
    right = hashlib.sha512(DATA).hexdigest()
    async with files(disk=DATA) as url, server.session() as session:
        good, bad = await _queued(session), await _queued(session)
        assert await _import(session, good, f"{url}/disk", os_hash_algo="sha512", os_hash_value=right) == 202
        assert await _import(session, bad, f"{url}/disk", os_hash_algo="sha256", os_hash_value="0" * 64) == 202
        assert (await _ended(session, good))["status"] == "active"
        assert (await _ended(session, bad))["status"] == "queued"
    assert server.site.files() == [f"images/{good}"]


async def test_what_fails_leaves_nothing_and_tells_no_secret(server: Server, tmp_path: Path) -> None:
    moved = web.Response(status=302, headers={"Location": "http://127.0.0.2:1/"})
    evil = b"QFI\xfb\0\0\0\3" + (512).to_bytes(8, "big") + (9).to_bytes(4, "big") + bytes(4096)
    async with files(moved=lambda: moved, evil=evil) as url, server.session() as session:
        wanted = {f"{url}/gone?{CANARY}": "queued", f"{url}/moved?{CANARY}": "queued", f"{url}/evil?{CANARY}": "killed",
                  f"http://10.255.255.1/{CANARY}": "queued"}  # fmt: skip
        for address, status in wanted.items():
            image_id = await _queued(session)
            assert await _import(session, image_id, address) == 202
            assert (await _ended(session, image_id))["status"] == status
        assert server.site.files() == []
    for database in (tmp_path / "state.db", tmp_path / "journal.db"):
        with sqlite3.connect(database) as db:
            assert CANARY not in "\n".join(db.iterdump())


async def test_what_is_refused_at_once(server: Server) -> None:
    async with server.session() as session:
        image_id = await _queued(session)
        for url in (
            "file:///etc/shadow",
            "ftp://a/b",
            "http://u:p@a/b",
            5,
            None,
            "http://a b/",
            "https://" + "a" * 5000,
        ):
            assert await _import(session, image_id, url) == 400, url
        for more in ({"os_hash_algo": "crc"}, {"os_hash_algo": "md5", "os_hash_value": "xx"},
                     {"os_hash_algo": "md5", "os_hash_value": "00"}, {"name": "glance-direct"}):  # fmt: skip
            assert await _import(session, image_id, "https://a/b", **more) == 400
        assert await _import(session, "00000000-0000-4000-8000-00000000dead", "https://a/b") == 404
        bare = await _queued(session, disk_format=None, container_format=None)
        assert await _import(session, bare, "https://a/b") == 400
        assert (await _ended(session, image_id))["status"] == "queued"
