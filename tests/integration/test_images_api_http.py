"""The image API on the wire: rights, ranges, cut connections, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.state import messages
from tests.integration.imageserver import Server, image_server

IMAGES = "/image/v2/images"
BYTES = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with image_server(tmp_path) as made:
        made.add_user("mia", "red", "member")
        made.add_user("ria", "red", "reader")
        made.add_user("bob", "blue", "member")
        yield made


async def _image(session: Any, data: bytes | None = None, **values: Any) -> str:
    body = {"name": "disk", "disk_format": "raw", "container_format": "bare", **values}
    async with session.post(IMAGES, json=body) as answer:
        assert answer.status == 201, await answer.text()
        image_id = str((await answer.json())["id"])
    if data is not None:
        async with session.put(f"{IMAGES}/{image_id}/file", data=data, headers=BYTES) as answer:
            assert answer.status == 204, await answer.text()
    return image_id


async def _status(session: Any, image_id: str) -> str:
    async with session.get(f"{IMAGES}/{image_id}") as answer:
        return str((await answer.json())["status"])


async def _until(session: Any, image_id: str, wanted: str) -> None:
    async with asyncio.timeout(60):
        while await _status(session, image_id) != wanted:
            await asyncio.sleep(0.05)


async def test_discovery_needs_no_login_and_names_the_versions(server: Server) -> None:
    async with server.session() as session:
        session.headers.clear()
        async with session.get("/image") as answer:
            found = await answer.json()
            assert answer.status == 300
    assert found["versions"][0]["status"] == "CURRENT"
    assert found["versions"][0]["links"][0]["href"] == f"{server.url}/image/v2/"


async def test_three_roles_and_two_projects(server: Server) -> None:
    async with server.session("mia", "red") as mia, server.session("bob", "blue") as bob:
        private = await _image(mia, b"x" * 4096)
        shared = await _image(mia, b"y" * 4096, visibility="community")
        async with server.session("ria", "red") as ria:
            async with ria.get(f"{IMAGES}/{private}/file") as answer:
                assert await answer.read() == b"x" * 4096
            async with ria.post(IMAGES, json={}) as answer:
                assert answer.status == 403
            async with ria.put(f"{IMAGES}/{private}/file", data=b"z", headers=BYTES) as answer:
                assert answer.status == 403
        for method, path in (("GET", ""), ("GET", "/file"), ("PUT", "/file"), ("PATCH", ""), ("DELETE", "")):
            sent: dict[str, Any] = {"PUT": {"data": b"x", "headers": BYTES}, "PATCH": {"data": b"[]", "headers": PATCH}}
            async with bob.request(method, f"{IMAGES}/{private}{path}", **sent.get(method, {})) as answer:
                assert answer.status == 404, (method, path)
        async with bob.get(f"{IMAGES}/{shared}/file") as answer:
            assert await answer.read() == b"y" * 4096
        async with bob.delete(f"{IMAGES}/{shared}") as answer:
            assert answer.status == 403
        async with bob.get(IMAGES) as answer:
            assert (await answer.json())["images"] == []
        async with mia.post(IMAGES, json={"visibility": "public"}) as answer:
            assert answer.status == 403
        async with server.session() as admin:
            public = await _image(admin, visibility="public")
            async with admin.delete(f"{IMAGES}/{shared}") as answer:
                assert answer.status == 204
        async with bob.get(IMAGES) as answer:
            assert [image["id"] for image in (await answer.json())["images"]] == [public]


async def test_the_bytes_of_a_deactivated_image_are_for_administrators(server: Server) -> None:
    async with server.session("mia", "red") as mia, server.session() as admin:
        image = await _image(mia, b"x" * 4096)
        for path, status, may in (("deactivate", "deactivated", False), ("reactivate", "active", True)):
            for _ in range(2):
                async with mia.post(f"{IMAGES}/{image}/actions/{path}") as answer:
                    assert answer.status == 204
            assert await _status(mia, image) == status
            async with mia.get(f"{IMAGES}/{image}/file") as answer:
                assert answer.status == (200 if may else 403)
                assert may or "openstack image set --activate" in await answer.text()
            async with admin.get(f"{IMAGES}/{image}/file") as answer:
                assert await answer.read() == b"x" * 4096
        empty = await _image(mia)
        async with mia.post(f"{IMAGES}/{empty}/actions/deactivate") as answer:
            assert answer.status == 403


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        (None, 200, 0, 3_000_000),
        ("bytes=0-", 206, 0, 3_000_000),
        ("bytes=5-9", 206, 5, 10),
        ("bytes=1048570-1048585", 206, 1048570, 1048586),
        ("bytes=-7", 206, 2_999_993, 3_000_000),
        ("bytes=2999990-9999999", 206, 2_999_990, 3_000_000),
        ("bytes=1-2,5-6", 200, 0, 3_000_000),
        ("lines=1-2", 200, 0, 3_000_000),
        ("bytes=3000000-", 416, 0, 0),
    ],
)
async def test_ranges(server: Server, asked: str | None, status: int, start: int, stop: int) -> None:
    data = os.urandom(3_000_000)
    async with server.session("mia", "red") as session:
        image_id = await _image(session, data)
        headers = {"Range": asked} if asked else {}
        async with session.get(f"{IMAGES}/{image_id}/file", headers=headers) as answer:
            got = await answer.read()
            assert answer.status == status
            if status == 416:
                return
            assert got == data[start:stop]
            if status == 206:
                assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/3000000"


async def test_there_is_nothing_to_download_before_the_upload(server: Server) -> None:
    async with server.session("mia", "red") as session:
        image_id = await _image(session)
        async with session.get(f"{IMAGES}/{image_id}/file") as answer:
            assert (answer.status, await answer.read()) == (204, b"")


@pytest.mark.parametrize("framing", ["Content-Length: 4000000", "Transfer-Encoding: chunked"])
async def test_an_upload_that_is_cut_off_leaves_the_image_queued_and_no_bytes(server: Server, framing: str) -> None:
    async with server.session("mia", "red") as session:
        image_id = await _image(session)
        port = int(server.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"PUT {IMAGES}/{image_id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {session.headers['X-Auth-Token']}\r\n"
            f"Content-Type: application/octet-stream\r\n{framing}\r\n\r\n"
        )
        part = b"a" * 100_000
        writer.write(head.encode() + (b"%x\r\n%b\r\n" % (len(part), part) if "chunked" in framing else part))
        await writer.drain()
        await _until(session, image_id, "saving")
        writer.transport.abort()
        await _until(session, image_id, "queued")
        assert server.site.files() == []
        async with session.put(f"{IMAGES}/{image_id}/file", data=b"b" * 4096, headers=BYTES) as answer:
            assert answer.status == 204
        async with session.put(f"{IMAGES}/{image_id}/file", data=b"b" * 4096, headers=BYTES) as answer:
            assert answer.status == 409


async def test_a_download_that_is_cut_off_frees_everything(server: Server) -> None:
    async with server.session("mia", "red") as session:
        image_id = await _image(session, os.urandom(30_000_000))
        async with session.get(f"{IMAGES}/{image_id}/file") as answer:
            await answer.content.readexactly(1000)
            answer.close()
        async with asyncio.timeout(60):
            while server.site.port._tickets._open or server.site.streams._streams:
                await asyncio.sleep(0.05)
        assert await _status(session, image_id) == "active"


async def test_a_refused_image_is_killed_and_told(server: Server) -> None:
    async with server.session("mia", "red") as session:
        image_id = await _image(session)
        evil = b"QFI\xfb\0\0\0\3" + b"\0" * 70_000
        async with session.put(f"{IMAGES}/{image_id}/file", data=evil, headers=BYTES) as answer:
            body = await answer.json()
            assert 400 <= answer.status < 500
        assert "signature of qcow" in json.dumps(body)
        assert await _status(session, image_id) == "killed"
    (told,) = server.site.db.read_now(messages.listing)
    assert (told.resource_uuid, told.code) == (image_id, "image.format-mismatch")
    assert server.site.files() == []


async def test_what_is_no_image_body_is_refused(server: Server) -> None:
    async with server.session("mia", "red") as session:
        image_id = await _image(session)
        for method, path, data, headers, status in (
            ("POST", IMAGES, b"[]", {"Content-Type": "application/json"}, 400),
            ("POST", IMAGES, b"{", {"Content-Type": "application/json"}, 400),
            ("POST", IMAGES, b'{"id": "nonsense"}', {"Content-Type": "application/json"}, 400),
            ("POST", IMAGES, b'{"id": 7}', {"Content-Type": "application/json"}, 400),
            ("POST", IMAGES, json.dumps({"id": image_id}).encode(), {"Content-Type": "application/json"}, 409),
            ("POST", IMAGES, b'{"name":"' + b"x" * 200_000 + b'"}', {"Content-Type": "application/json"}, 413),
            ("POST", IMAGES, b"name=x", {"Content-Type": "text/plain"}, 415),
            ("PATCH", f"{IMAGES}/{image_id}", b"[]", {"Content-Type": "application/json"}, 415),
            ("PATCH", f"{IMAGES}/{image_id}", b'{"op": 1}', PATCH, 400),
            ("PUT", f"{IMAGES}/{image_id}/file", b"x", {"Content-Type": "text/plain"}, 415),
            ("GET", f"{IMAGES}?limit=-1", None, {}, 400),
            ("GET", f"{IMAGES}?sort_key=secret", None, {}, 400),
            ("GET", f"{IMAGES}?marker=nowhere", None, {}, 400),
            ("GET", f"{IMAGES}?visibility=none", None, {}, 400),
            ("GET", f"{IMAGES}/nowhere", None, {}, 404),
            ("DELETE", f"{IMAGES}/{image_id}/tags/none", None, {}, 404),
        ):
            async with session.request(method, path, data=data, headers=headers) as answer:
                assert answer.status == status, (method, path, await answer.text())
        assert await _status(session, image_id) == "queued"


async def test_lists_link_to_their_next_page(server: Server) -> None:
    async with server.session("mia", "red") as session:
        made = [await _image(session, name=f"n{number}") for number in range(5)]
        path, seen = f"{IMAGES}?limit=2&sort=name:asc", []
        while path:
            async with session.get(path) as answer:
                found = await answer.json()
            seen += [image["id"] for image in found["images"]]
            path = f"/image{found['next']}" if "next" in found else ""
        assert seen == made


async def test_registering_an_encrypted_image_with_its_secret_in_one_call(server: Server) -> None:
    async with server.session("mia", "red") as session:
        wanted = {
            "name": "crypt", "disk_format": "qcow2", "properties": {"os_distro": "debian"},
            "encryption": {"secret": {"type": "passphrase", "payload_b64": "c2VjcmV0"}, "decrypt_size": 1 << 20},
        }  # fmt: skip
        async with session.post("/brickyard/v1/images", json={"image": wanted}) as answer:
            assert answer.status == 201, await answer.text()
            image = (await answer.json())["image"]
        assert image["os_encrypt_format"] == "LUKSv1"
        assert image["os_decrypt_size"] == str(1 << 20)
        secret = server.site.db.read_now(lambda conn: server.site.keys.get(conn, image["os_encrypt_key_id"]))
        assert (secret.type, secret.value) == ("passphrase", b"secret")
        for encryption in ({"decrypt_size": 1}, {"decrypt_size": 1, "key_id": image["id"]}, {"decrypt_size": 0}):
            body = {"image": {"disk_format": "raw", "encryption": encryption}}
            async with session.post("/brickyard/v1/images", json=body) as answer:
                assert answer.status == 400
        async with session.get("/brickyard/v1/images") as answer:
            assert [found["id"] for found in (await answer.json())["images"]] == [image["id"]]
        async with session.delete(f"/brickyard/v1/images/{image['id']}") as answer:
            assert answer.status == 204
        async with session.get("/brickyard/v1/keys") as answer:
            assert (await answer.json())["keys"] == []
