"""Volumes over HTTP: the real application and engine beside real agents, callers by name (see apitoy)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from agent.targets.base import Target
from coordinator.api.app import make_app
from coordinator.api.dispatch import Hooks
from coordinator.api.resources import all_resources
from coordinator.api.services import Services
from coordinator.api.settings import ApiSettings
from coordinator.compute.base import Compute
from coordinator.identity.policy import Policy
from coordinator.keys.store import KeyStore
from coordinator.operations.completions import Completions
from coordinator.operations.compute_service import ComputeService
from coordinator.operations.engine import Engine
from coordinator.scheduler.placement import Scheduler
from coordinator.state import operations, types
from tests.unit.coordinator.api.apitoy import ByName
from tests.unit.coordinator.operations.support import Site, site


@dataclass
class Answered:
    status: int
    body: Any
    headers: Any


@dataclass
class Api:
    """`await api("GET", "/volumes", who="other", version=27, json=...)` below /v3 (or an absolute path)."""

    here: Site
    session: ClientSession
    crashes: list[Any] = field(default_factory=list)

    async def __call__(
        self, method: str, path: str, *, who: str = "worker", version: int | str = 71, headers: Any = None, **more: Any
    ) -> Answered:
        path = path if path.startswith("/brickyard") else f"/v3{path}"
        send = {"X-Auth-Token": who, "OpenStack-API-Version": f"volume 3.{version}", **(headers or {})}
        async with self.session.request(method, path, headers=send, **more) as answer:
            text = await answer.text()
            body = await answer.json() if text and "json" in answer.content_type else text
            return Answered(answer.status, body, answer.headers)

    async def settled(self) -> None:
        """Wait until no operation is at work."""
        for operation in await self.here.db.read(lambda conn: operations.listing(conn, active=True)):
            assert await self.here.engine.wait(operation.id, 300) is not None

    async def volume(self, who: str = "worker", **wanted: Any) -> dict[str, Any]:
        """A new volume, finished."""
        made = await self("POST", "/volumes", who=who, json={"volume": {"size": 1, **wanted}})
        assert made.status == 202, made.body
        await self.settled()
        return (await self("GET", f"/volumes/{made.body['volume']['id']}", who=who)).body["volume"]

    async def act(self, volume_id: str, name: str, body: Any = None, **more: Any) -> Answered:
        return await self("POST", f"/volumes/{volume_id}/action", json={name: body}, **more)


@asynccontextmanager
async def volume_api(
    tmp_path: Path,
    names: tuple[str, ...] = ("host-a",),
    targets: Mapping[str, Target] | None = None,
    others: Mapping[type, Any] | None = None,
    *,
    compute: Compute | None = None,
    cluster: str | None = None,
    policy: Policy | None = None,
    scheduler: Scheduler | None = None,
    **settings: Any,
) -> AsyncIterator[Api]:
    used = {ComputeService: ComputeService(compute)} if compute is not None else {}
    async with site(tmp_path, names, targets, cluster, compute=compute, scheduler=scheduler) as here:
        here.db.write_now(lambda conn: types.ensure_default(conn, types.DEFAULT_NAME))
        services = Services(
            here.db,
            policy or Policy.builtin(),
            ByName(),
            ApiSettings(response_validation="error", **settings),
            {
                Engine: here.engine,
                KeyStore: here.keys,
                Scheduler: scheduler or Scheduler(),
                Completions: here.completions,
                **used,
                **(others or {}),
            },
        )
        crashes: list[Any] = []

        async def crashed(crash: Any) -> None:
            crashes.append(crash)

        runner = web.AppRunner(make_app(all_resources(), services, Hooks(crashed=crashed)), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
                yield Api(here, session, crashes)
        finally:
            await runner.cleanup()
        assert crashes == []
