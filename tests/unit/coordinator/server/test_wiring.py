"""A coordinator put together: it serves, stops, starts again, and says which port is taken."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from agent.base.config import ConfigError, load
from coordinator.keys.errors import WrongKeyEncryptionKey
from coordinator.keys.kek import Kek, store
from coordinator.server.errors import PortTaken
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.start import open_state
from coordinator.server.wiring import build
from coordinator.state.errors import DatabaseBusy


def settings(folder: Path, *more: str) -> CoordinatorSettings:
    sets = [f"coordinator.state_dir={folder}", "coordinator.listen=127.0.0.1", "coordinator.port=0",
            "enrolment.listen=127.0.0.1", "enrolment.port=0", "identity.bcrypt_rounds=4", *more]  # fmt: skip
    return load(CoordinatorSettings, None, sets)


async def status(port: int, path: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status


async def test_it_serves_stops_and_starts_again(tmp_path: Path) -> None:
    for _ in range(2):
        config = settings(tmp_path)
        coordinator = build(config, await asyncio.to_thread(open_state, config))
        await coordinator.start()
        assert await status(coordinator.port, "/healthz") == 200
        assert await status(coordinator.port, "/v3/volumes") == 401
        with pytest.raises(DatabaseBusy):
            await asyncio.to_thread(open_state, config)
        await coordinator.stop()
    assert (tmp_path / "admin-password").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "kek").stat().st_mode & 0o777 == 0o400


async def test_a_taken_port_is_named_and_nothing_was_begun(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for key in ("coordinator", "enrolment"):
            config = settings(tmp_path, f"{key}.port={port}")
            coordinator = build(config, await asyncio.to_thread(open_state, config))
            with pytest.raises(PortTaken, match=f"127.0.0.1:{port}") as taken:
                await coordinator.start()
            assert f"{key}.port" in taken.value.remedy
            await coordinator.stop()


def test_another_key_encryption_key_is_refused_with_a_sentence(tmp_path: Path) -> None:
    open_state(settings(tmp_path)).db.close()
    (tmp_path / "kek").unlink()
    store(tmp_path / "kek", (Kek.generate(),))
    with pytest.raises(WrongKeyEncryptionKey, match="does not open this database"):
        open_state(settings(tmp_path))


def test_protections_that_are_wrong_keep_it_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "protections.conf"
    wrong = {"regular expression": "[(]\nupdate = admin\n", "no section": "update = admin\n", "No such": None}
    for word, text in wrong.items():
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        config = settings(tmp_path, f"images.property_protections={file}")
        opened = open_state(config)
        try:
            with pytest.raises(ConfigError, match=word) as refused:
                build(config, opened)
        finally:
            opened.db.close()
        assert str(file) in str(refused.value)
