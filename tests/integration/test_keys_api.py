"""Secrets over HTTP: what goes in never comes out, and nobody else finds it."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.base import log
from coordinator.state.transition import enter
from tests.integration.imageserver import Server, image_server

CANARY = "canary-7b1e04-payload"
ENCODED = base64.b64encode(CANARY.encode()).decode()
KEYS = "/brickyard/v1/keys"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with image_server(tmp_path) as made:
        made.add_user("mia", "red", "member")
        made.add_user("ria", "red", "reader")
        made.add_user("bob", "blue", "member")
        yield made


async def _made(session: Any, **key: Any) -> dict[str, Any]:
    body = {"type": "passphrase", "payload_b64": ENCODED, **key}
    async with session.post(KEYS, json={"key": body}) as answer:
        assert answer.status == 201, await answer.text()
        return dict((await answer.json())["key"])


async def test_register_list_show_delete(server: Server) -> None:
    async with server.session("mia", "red") as session:
        made = await _made(session, name="image key")
        assert (made["type"], made["name"]) == ("passphrase", "image key")
        async with session.post(KEYS, json={"key": {"bit_length": 512}}) as answer:
            generated = (await answer.json())["key"]
        assert (generated["type"], generated["bit_length"]) == ("symmetric", 512)
        async with session.get(KEYS, params={"limit": 1}) as answer:
            first = await answer.json()
        async with session.get(KEYS, params={"marker": first["next_marker"]}) as answer:
            rest = await answer.json()
        assert [key["id"] for key in first["keys"] + rest["keys"]] == [generated["id"], made["id"]]
        assert rest["next_marker"] is None
        async with session.get(f"{KEYS}/{made['id']}") as answer:
            assert (await answer.json())["key"] == made
        async with session.delete(f"{KEYS}/{made['id']}") as answer:
            assert answer.status == 204
        async with session.get(f"{KEYS}/{made['id']}") as answer:
            assert answer.status == 404
    opened = server.site.db.read_now(lambda conn: server.site.keys.get(conn, generated["id"]))
    assert len(opened.value) == 64


async def test_three_roles_and_two_projects(server: Server) -> None:
    async with server.session("mia", "red") as mia:
        made = await _made(mia)
    async with server.session("ria", "red") as reader:
        async with reader.get(f"{KEYS}/{made['id']}") as answer:
            assert answer.status == 200
        async with reader.post(KEYS, json={"key": {"payload_b64": ENCODED}}) as answer:
            assert answer.status == 403
        async with reader.delete(f"{KEYS}/{made['id']}") as answer:
            assert answer.status == 403
    async with server.session("bob", "blue") as other:
        async with other.get(KEYS) as answer:
            assert (await answer.json())["keys"] == []
        for call in (other.get, other.delete):
            async with call(f"{KEYS}/{made['id']}") as answer:
                assert answer.status == 404
    async with server.session() as admin, admin.get(f"{KEYS}/{made['id']}") as answer:
        assert answer.status == 200
    async with server.session("mia", "red") as mia, mia.get(KEYS, headers={"X-Auth-Token": "no"}) as answer:
        assert answer.status == 401


async def test_a_secret_in_use_is_kept(server: Server) -> None:
    async with server.session("mia", "red") as session:
        made = await _made(session)
        volume = server.site.db.write_now(
            lambda conn: enter(
                conn, "volume", "create", id="11111111-2222-3333-4444-555555555555", project_id=made["project_id"],
                user_id="u", size=1, encryption_key_id=made["id"],
            )
        )  # fmt: skip
        async with session.delete(f"{KEYS}/{made['id']}") as answer:
            body = await answer.json()
            assert answer.status == 409
            assert volume.id in body["error"]["message"]
        named = await _made(session)
        image = {"disk_format": "qcow2", "encryption": {"key_id": named["id"], "decrypt_size": 1 << 20}}
        async with session.post("/brickyard/v1/images", json={"image": image}) as answer:
            assert answer.status == 201, await answer.text()
        async with session.delete(f"{KEYS}/{named['id']}") as answer:
            assert answer.status == 409


@pytest.mark.parametrize(
    "key",
    [
        {"payload_b64": CANARY},
        {"payload_b64": ENCODED, "type": "rot13"},
        {"payload_b64": ENCODED, "extra": 1},
        {"payload": CANARY},
        {"payload_b64": [ENCODED]},
        {"payload_b64": {"a": ENCODED}},
        {"payload_b64": ENCODED * 10_000},
        {"payload_b64": ""},
        {"type": "passphrase"},
        {"bit_length": 7},
        {"payload_b64": ENCODED, "name": "x" * 300},
    ],
)
async def test_a_bad_secret_is_refused_without_quoting_it(
    server: Server, key: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    log.configure("debug", json=True)
    caplog.set_level(logging.DEBUG)
    async with server.session("mia", "red") as session, session.post(KEYS, json={"key": key}) as answer:
        text = await answer.text()
        assert answer.status in (400, 413), text
    for told in (text, caplog.text):
        assert CANARY not in told
        assert ENCODED[:20] not in told


async def test_the_value_is_in_no_answer_no_log_and_no_file(
    server: Server, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    log.configure("debug", json=True)
    caplog.set_level(logging.DEBUG)
    texts = []
    async with server.session("mia", "red") as session:
        made = await _made(session, type="symmetric")
        inline = {
            "disk_format": "luks", "container_format": "bare",
            "encryption": {"secret": {"payload_b64": ENCODED}, "decrypt_size": 1 << 20},
        }  # fmt: skip
        async with session.post("/brickyard/v1/images", json={"image": inline}) as answer:
            texts.append(await answer.text())
        for path in (KEYS, f"{KEYS}/{made['id']}", "/brickyard/v1/images", "/image/v2/images"):
            async with session.get(path) as answer:
                texts.append(await answer.text())
    files = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    for text in (*texts, *files, caplog.text):
        assert CANARY not in text
        assert ENCODED not in text
        assert CANARY.encode().hex() not in text
