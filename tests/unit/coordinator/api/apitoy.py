"""A small resource with every feature of the framework, served for real."""

from __future__ import annotations

import datetime
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from aiohttp import ClientSession, web

from agent.base.errors import Conflict, NotFound, Temporary
from coordinator.api.app import make_app
from coordinator.api.call import Call, Reply
from coordinator.api.dispatch import Hooks
from coordinator.api.fields import Answer, Body, Boolean, Gib, Hidden, Metadata, Name, Since, Time, Until, Uuid
from coordinator.api.route import Resource, action, delete, get, post, put
from coordinator.api.services import Services
from coordinator.api.settings import ApiSettings
from coordinator.identity.authenticator import NoAuthenticator
from coordinator.identity.context import Principal, expanded
from coordinator.identity.errors import Unauthorized
from coordinator.identity.policy import Policy
from tests.support import databases

P1, P2 = "a" * 32, "b" * 32
THING = "11111111-2222-3333-4444-555555555555"


class CreateThing(Body):
    unknown_refused_from = 53
    size: Gib
    name: Name | None = None
    bootable: Boolean = False
    metadata: Metadata | None = None
    source: Uuid | None = None
    group_id: Annotated[str | None, Since(13)] = None
    old: Annotated[str | None, Until(20)] = None
    secret: Annotated[Name | None, Hidden()] = None


class Inner(Answer):
    a: int
    b: Annotated[int, Since(5)] = 0


class Thing(Answer):
    id: str
    size: int
    created_at: Time
    inner: list[Inner]
    group_id: Annotated[str | None, Since(13)] = None
    old: Annotated[str | None, Until(20)] = None


class Extend(Body):
    new_size: Gib


def thing(size: int = 1, **more: Any) -> dict[str, Any]:
    made = datetime.datetime(2026, 1, 2, 3, 4, 5)
    return {
        "id": THING,
        "size": size,
        "created_at": made,
        "inner": [{"a": 1, "b": 2}],
        "group_id": "g",
        "old": "o",
        **more,
    }


async def create(call: Call) -> Any:
    return thing(call.valid(CreateThing).size)


async def show(call: Call) -> Any:
    match call.params["thing_id"]:
        case "boom":
            raise RuntimeError("inside /etc/secret")
        case "wrong":
            return {"id": THING}
        case "busy":
            raise Temporary(reason="the pool is being repaired", retry_after=2.5)
        case "locked":
            raise Conflict(reason="Invalid thing: it is locked.")
        case "none":
            raise NotFound(noun="Thing", id="none")
    return thing()


async def listed(call: Call) -> Any:
    return {"things": [call.prefix, call.base_url, dict(call.query)]}


async def gone(call: Call) -> None:
    return None


async def extend(call: Call) -> Any:
    return Reply({"new_size": call.valid(Extend).new_size}, headers={"X-Thing": call.params["thing_id"]})


async def old_way(call: Call) -> Any:
    return {"way": "old"}


async def new_way(call: Call) -> Any:
    return {"way": "new"}


TOY = Resource(
    "toy",
    "Things.",
    (
        get("/volumes", listed, "volume:get_all", "List."),
        post("/volumes", create, "volume:create", "Create.", body=CreateThing, body_key="volume", answer=Thing,
             answer_key="volume", status=202),
        get("/volumes/detail", listed, "volume:get_all", "List."),
        get("/volumes/{thing_id}", show, "volume:get", "Show.", answer=Thing, answer_key="volume"),
        delete("/volumes/{thing_id}", gone, "volume:delete", "Delete."),
        action("/volumes/{thing_id}/action", "os-extend", extend, "volume:extend", "Extend.", body=Extend),
        action("/volumes/{thing_id}/action", "os-later", gone, "volume:extend", "Later.", since=42),
        get("/ways", old_way, None, "Old.", until=9),
        get("/ways", new_way, None, "New.", since=10),
        put("/types/{type_id}", gone, "volume_extension:type_update", "Admin only."),
        get("/later", new_way, None, "Late.", since=30),
    ),
)  # fmt: skip


class ByName:
    """Callers by the name in X-Auth-Token; any X-Service-Token vouches as a service."""

    def __init__(self) -> None:
        people: tuple[tuple[str, str | None, str], ...] = (
            ("system", None, "admin"),
            ("root", P1, "admin"),
            ("worker", P1, "member"),
            ("looker", P1, "reader"),
            ("other", P2, "member"),
        )
        self.callers = {
            name: Principal(name, name, project, name, expanded(frozenset({role})), system=name == "system")
            for name, project, role in people
        }

    async def authenticate(
        self, headers: Any, address: str | None, project: str | None
    ) -> tuple[Principal, frozenset[str]]:
        name = headers.get("X-Auth-Token", "")
        if name not in self.callers:
            raise Unauthorized
        return self.callers[name], frozenset({"service"} if headers.get("X-Service-Token") else ())

    def challenge(self, base_url: str) -> str:
        return NoAuthenticator("p", "u").challenge(base_url)

    async def has_project(self, project_id: str) -> bool | None:
        return None

    async def close(self) -> None:
        return None


@asynccontextmanager
async def served(tmp_path: Path, *resources: Resource, hooks: Hooks | None = None, **settings: Any):
    """A session whose base is a real server with the toy; `session.get("/v3/volumes")`."""
    settings.setdefault("response_validation", "error")
    db = databases.fresh(tmp_path / "state.db")
    services = Services(db, Policy.builtin(), ByName(), ApiSettings(**settings))
    runner = web.AppRunner(make_app(resources or (TOY,), services, hooks), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with ClientSession(f"http://127.0.0.1:{port}", headers={"X-Auth-Token": "worker"}) as session:
            yield session
    finally:
        await runner.cleanup()
        db.close()
