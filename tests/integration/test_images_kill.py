"""kill -9 in the middle of an upload, of the coordinator and of the store: queued again, no byte left, and it works."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.ports import free_port

pytestmark = pytest.mark.kill
IMAGES = "/image/v2/images"
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass
class Dev:
    """A running `brickyard dev`, and a session of its administrator."""

    folder: Path
    url: str
    pid: int
    session: aiohttp.ClientSession

    def files(self) -> list[Path]:
        return [path for path in (self.folder / "host-a" / "images").rglob("*") if path.is_file()]

    def child_at(self, port: int) -> int:
        """The child process that listens on a port of loopback."""
        wanted = f"0100007F:{port:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {f"socket:[{line[9]}]" for line in lines if line[1] == wanted and line[3] == "0A"}
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            for fd in Path(f"/proc/{child}/fd").iterdir():
                with suppress(OSError):
                    if str(fd.readlink()) in inodes:
                        return int(child)
        raise AssertionError(f"nobody listens on port {port}")

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """(status, JSON), tried again while the coordinator is away."""
        async with asyncio.timeout(60):
            while True:
                try:
                    async with self.session.request(method, path, **more) as answer:
                        return answer.status, await answer.json(content_type=None) if answer.status != 204 else None
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)

    async def until(self, image_id: str, status: str) -> None:
        async with asyncio.timeout(60):
            while (await self.call("GET", f"{IMAGES}/{image_id}"))[1]["status"] != status:
                await asyncio.sleep(0.1)


async def _login(session: aiohttp.ClientSession, openrc: Path) -> None:
    lines = [line.removeprefix("export ") for line in openrc.read_text().splitlines() if "=" in line]
    values = {name: value.strip("'\"") for name, _, value in (line.partition("=") for line in lines)}
    user = {"name": values["OS_USERNAME"], "domain": {"id": "default"}, "password": values["OS_PASSWORD"]}
    scope = {"project": {"name": values["OS_PROJECT_NAME"], "domain": {"id": "default"}}}
    login = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
    async with session.post("/identity/v3/auth/tokens", json={"auth": login}) as answer:
        assert answer.status == 201, await answer.text()
        session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]


@asynccontextmanager
async def running() -> AsyncIterator[Dev]:
    folder = Path(tempfile.mkdtemp(prefix="brickyard-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    port = free_port()
    command = [str(Path(sys.executable).with_name("brickyard")), "dev", "--state-dir", str(folder / "site")]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, "--port", str(port), stdout=asyncio.subprocess.PIPE, stderr=log, stdin=asyncio.subprocess.DEVNULL
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(40):
            while (line := await process.stdout.readline()) != b"ready\n":
                assert line, (folder / "log").read_text()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            await _login(session, folder / "site" / "openrc")
            yield Dev(folder / "site", f"http://127.0.0.1:{port}", process.pid, session)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.communicate(), 60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("victim", ["coordinator", "store"])
async def test_a_kill_in_the_middle_of_an_upload_leaves_all_or_nothing(victim: str) -> None:
    async with running() as dev:
        image = {"name": "disk", "disk_format": "raw", "container_format": "bare"}
        _, made = await dev.call("POST", IMAGES, json=image)
        image_id, path = made["id"], f"{IMAGES}/{made['id']}/file"
        port = int(dev.url.rpartition(":")[2])
        settings = (dev.folder / "host-a.toml").read_text()
        agent_port = next(int(line.split("=")[1]) for line in settings.splitlines() if line.startswith("port"))

        async def slowly() -> AsyncIterator[bytes]:
            for _ in range(600):
                yield os.urandom(200_000)
                await asyncio.sleep(0.05)

        async def upload() -> None:
            with suppress(aiohttp.ClientError):
                async with dev.session.put(path, data=slowly(), headers=BYTES):
                    return

        sending = asyncio.create_task(upload())
        async with asyncio.timeout(60):
            while not any(file.stat().st_size > 4_000_000 for file in dev.files()):
                await asyncio.sleep(0.1)
        os.kill(dev.child_at(port if victim == "coordinator" else agent_port), signal.SIGKILL)
        await dev.until(image_id, "queued")
        assert dev.files() == []
        sending.cancel()
        content = os.urandom(3_000_000)
        assert (await dev.call("PUT", path, data=content, headers=BYTES))[0] == 204
        async with dev.session.get(path) as answer:
            assert await answer.read() == content
        assert (await dev.call("DELETE", f"{IMAGES}/{image_id}"))[0] == 204
        assert dev.files() == []
