"""A coordinator stops in time, whoever holds a connection open."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

from coordinator.server.settings import CoordinatorSettings
from coordinator.server.start import open_state
from coordinator.server.wiring import build


async def test_slow_callers_do_not_keep_it_from_stopping(tmp_path: Path) -> None:
    settings = CoordinatorSettings.model_validate(
        {
            "coordinator": {"state_dir": tmp_path, "listen": "127.0.0.1", "port": 0, "stop_grace_s": 0.2},
            "enrolment": {"listen": "127.0.0.1", "port": 0},
            "identity": {"bcrypt_rounds": 4},
        }
    )
    coordinator = build(settings, await asyncio.to_thread(open_state, settings))
    await coordinator.start()
    open_context = ssl.create_default_context()
    open_context.check_hostname, open_context.verify_mode = False, ssl.CERT_NONE
    writers = []
    for port, path, context in (
        (coordinator.port, "/identity/v3/auth/tokens", None),
        (coordinator.listener.port, "/enrol", open_context),
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + "{"
        writer.write(head.encode())
        await writer.drain()
        writers.append(writer)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await coordinator.stop()
    assert time.monotonic() - began < 30.0
    for writer in writers:
        writer.close()
