"""How the benchmarks use a site: a small HTTP client, volumes made, waited for, checked and deleted."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from typing import Any

from _common import GIB, Site


class Client:
    """Keep-alive HTTP/1.1 over one connection per worker: as little of the machine as can be, it shares the cores."""

    def __init__(self, endpoint: str) -> None:
        self._host, _, port = endpoint.removeprefix("http://").partition(":")
        self._port = int(port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.token = ""
        self.project = ""

    async def login(self, password: str) -> None:
        """A token for the admin, in its own project."""
        user = {"name": "admin", "domain": {"name": "Default"}, "password": password}
        scope = {"project": {"name": "admin", "domain": {"name": "Default"}}}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        body, headers = await self._call("POST", "/identity/v3/auth/tokens", {"auth": auth})
        self.token, self.project = headers["x-subject-token"], body["token"]["project"]["id"]

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """A call of /v3/PROJECT; the decoded answer."""
        return (await self._call(method, f"/v3/{self.project}{path}", body))[0]

    async def unlimited(self) -> None:
        """The admin raises its own quota."""
        quota = {"volumes": -1, "gigabytes": -1}
        await self.call("PUT", f"/os-quota-sets/{self.project}", {"quota_set": quota})

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()

    async def _call(self, method: str, path: str, body: Any = None) -> tuple[Any, dict[str, str]]:
        status, raw, headers = await self.raw(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {raw.decode(errors='replace')}")
        return json.loads(raw) if raw else None, headers

    async def raw(self, method: str, path: str, body: Any = None) -> tuple[int, bytes, dict[str, str]]:
        """Status, body as it came, headers."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nX-Auth-Token: {self.token}\r\n"
            "OpenStack-API-Version: volume 3.71\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        self._idle.append((reader, writer))
        return status, raw, headers


async def create(client: Client) -> str:
    """POST one volume of 1 GiB; its id."""
    body = {"volume": {"size": 1, "name": f"bench-{secrets.token_hex(4)}"}}
    return str((await client.call("POST", "/volumes", body))["volume"]["id"])


async def available(client: Client, volume_id: str, pause_s: float = 0.002) -> None:
    """Ask until the volume is available."""
    while True:
        status = (await client.call("GET", f"/volumes/{volume_id}"))["volume"]["status"]
        if status == "available":
            return
        if status != "creating":
            raise RuntimeError(f"volume {volume_id} is {status}")
        await asyncio.sleep(pause_s)


async def none_in(client: Client, status: str, pause_s: float = 0.05) -> None:
    """Ask until no volume is in this status."""
    while (await client.call("GET", f"/volumes?status={status}&limit=1"))["volumes"]:
        await asyncio.sleep(pause_s)


async def can_create(client: Client) -> None:
    """Ask until a pool is there to put volumes in."""
    while not (await client.call("GET", "/scheduler-stats/get_pools"))["pools"]:
        await asyncio.sleep(0.005)


def check_file(site: Site, volume_id: str) -> None:
    """The volume's file is there, of the right size, and takes no space."""
    found = os.stat(site.volumes / volume_id)
    if found.st_size != GIB:
        raise RuntimeError(f"the file of volume {volume_id} has {found.st_size} bytes")


async def checked_and_deleted(site: Site, client: Client, ids: list[str]) -> None:
    """Each volume is available with its file; then all are deleted, and their files are gone."""
    limit = asyncio.Semaphore(16)

    async def remove(volume_id: str) -> None:
        async with limit:
            await available(client, volume_id)
            check_file(site, volume_id)
            await client.call("DELETE", f"/volumes/{volume_id}")

    await asyncio.gather(*(remove(volume_id) for volume_id in ids))
    await none_in(client, "deleting")
    left = [volume_id for volume_id in ids if (site.volumes / volume_id).exists()]
    if left:
        raise RuntimeError(f"{len(left)} files are left over")
