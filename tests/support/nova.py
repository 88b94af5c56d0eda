"""A small Nova that speaks the true protocol, with the part of a Keystone that its callers need.

What it checks, it checks as Nova does: token, microversion, the schema of each microversion, which servers there are,
on which host they run. `faults` are taken one by one: a status to answer with, or `hang`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from coordinator.compute.nova import Nova
from coordinator.compute.settings import ComputeSettings
from coordinator.identity.service_user import ServiceUser
from coordinator.identity.settings import KeystoneSettings

NEWEST = (2, 97)
PASSWORD = "a service's"
# The names of events, and the microversion that each came with.
_NAMES = {
    "network-changed": (2, 1), "network-vif-plugged": (2, 1), "network-vif-unplugged": (2, 1),
    "network-vif-deleted": (2, 1), "volume-extended": (2, 51), "power-update": (2, 76),
    "accelerator-request-bound": (2, 82), "volume-reimaged": (2, 93),
}  # fmt: skip


@dataclass
class FakeNova:
    """`servers` maps a server to its host (None: on none now); `attached` a (server, volume) to its attachment."""

    servers: dict[str, str | None] = field(default_factory=dict)
    attached: dict[tuple[str, str], str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    faults: list[int | str] = field(default_factory=list)
    newest: tuple[int, int] = NEWEST
    may: bool = True
    logins: int = 0
    tokens: set[str] = field(default_factory=set)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def nova(self, **settings: Any) -> Nova:
        """The adapter, logged in here."""
        login = ServiceUser(KeystoneSettings(auth_url=f"{self.url}/identity", password=SecretStr(PASSWORD)))
        return Nova(ComputeSettings(strategy="nova", **{"timeout_s": 5, **settings}), login, pause_s=0.01)


def _fault(status: int, message: str) -> web.Response:
    name = {400: "badRequest", 401: "unauthorized", 403: "forbidden", 404: "itemNotFound"}.get(status, "computeFault")
    return web.json_response({name: {"code": status, "message": message}}, status=status)


def _app(fake: FakeNova) -> web.Application:
    async def login(request: web.Request) -> web.Response:
        user = (await request.json())["auth"]["identity"]["password"]["user"]
        if user["password"] != PASSWORD:
            return _fault(401, "The request you have made requires authentication.")
        fake.logins += 1
        token = f"gAAAA-{fake.logins}"
        fake.tokens.add(token)
        endpoints = [
            {"interface": "public", "region": "One", "region_id": "One", "url": "http://198.51.100.1:8774/v2.1"},
            {"interface": "internal", "region": "One", "region_id": "One", "url": f"{fake.url}/compute/v2.1/"},
        ]
        catalog = [{"type": "identity", "endpoints": []}, {"type": "compute", "name": "nova", "endpoints": endpoints}]
        said = {"expires_at": "2999-01-01T00:00:00.000000Z", "catalog": catalog, "user": user}
        return web.json_response({"token": said}, status=201, headers={"X-Subject-Token": token})

    async def before(request: web.Request) -> tuple[tuple[int, int], web.Response | None]:
        if fake.faults:
            fault = fake.faults.pop(0)
            if fault == "hang":
                await asyncio.sleep(3600)
            assert isinstance(fault, int)
            return (2, 1), _fault(fault, "made up")
        if request.headers.get("X-Auth-Token") not in fake.tokens:
            return (2, 1), _fault(401, "Unauthorized")
        told = request.headers.get("OpenStack-API-Version", "compute 2.1").split()
        assert told[0] == "compute"
        fake.versions.append(told[1])
        version = tuple(int(part) for part in told[1].split("."))
        if not (2, 1) <= version <= fake.newest:
            return (2, 1), _fault(406, f"Version {told[1]} is not supported by the API.")
        return (version[0], version[1]), None

    async def events(request: web.Request) -> web.Response:
        version, refusal = await before(request)
        if refusal is not None:
            return refusal
        if not fake.may:
            return _fault(403, "Policy doesn't allow os_compute_api:os-server-external-events:create to be performed.")
        body = await request.json()
        given = body.get("events")
        if set(body) != {"events"} or not isinstance(given, list) or not given:
            return _fault(400, "Invalid input")
        for event in given:
            if set(event) - {"server_uuid", "name", "status", "tag"} or _NAMES.get(event.get("name"), (9, 9)) > version:
                return _fault(400, f"Invalid input for field/attribute name. Value: {event.get('name')}.")
        answered, found = [], False
        for event in given:
            code = 404
            if event["server_uuid"] in fake.servers:
                code = 200 if fake.servers[event["server_uuid"]] is not None else 422
            found |= code != 404
            answered.append({**event, "code": code, "status": "completed" if code == 200 else "failed"})
            if code == 200:
                fake.events.append(event)
        fake.heard.set()
        if not found:
            return _fault(404, "No instances found for any event")
        multi = any(event["code"] != 200 for event in answered)
        return web.json_response({"events": answered}, status=207 if multi else 200)

    async def attachment(request: web.Request) -> web.Response:
        version, refusal = await before(request)
        if refusal is not None:
            return refusal
        server, volume = request.match_info["server"], request.match_info["volume"]
        if server not in fake.servers:
            return _fault(404, f"Instance {server} could not be found.")
        if (server, volume) not in fake.attached:
            return _fault(404, f"volume_id not found: {volume}")
        found = {"serverId": server, "volumeId": volume, "device": "/dev/vdb"}
        if version >= (2, 89):
            found |= {"attachment_id": fake.attached[server, volume], "bdm_uuid": server}
        return web.json_response({"volumeAttachment": found})

    app = web.Application()
    app.router.add_post("/identity/v3/auth/tokens", login)
    app.router.add_post("/compute/v2.1/os-server-external-events", events)
    app.router.add_get("/compute/v2.1/servers/{server}/os-volume_attachments/{volume}", attachment)
    return app


@asynccontextmanager
async def fake_nova(**state: Any) -> AsyncIterator[FakeNova]:
    """One on a free port of loopback."""
    fake = FakeNova(**state)
    runner = web.AppRunner(_app(fake), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


@contextmanager
def nova_in_a_thread(**state: Any) -> Iterator[FakeNova]:
    """The same for tests that block."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, name="nova")
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(stack.enter_async_context(fake_nova(**state)), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
