"""Volumes as devices of their host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.kill.kinds.world import (
    Ctx,
    Kind,
    World,
    a_volume,
    asked,
)


def _attach(world: World, ctx: Ctx) -> None:
    body = {"volume_id": ctx["volume"], "host_id": world.site.volume_host}
    asked(lambda: world.site.api.post("/brickyard/v1/attachments", body))


def _of(world: World, ctx: Ctx) -> list[dict[str, Any]]:
    return [one for one in world.site.api.attachments() if one["volume_id"] == ctx["volume"]]


def _attached(world: World, ctx: Ctx) -> None:
    found = _of(world, ctx)
    assert [one["status"] for one in found] == ["attached"], found
    assert Path(found[0]["device"]["device"]).is_block_device()
    assert world.site.api.volume(ctx["volume"])["status"] == "in-use"
    world.site.api.delete(f"/brickyard/v1/attachments/{found[0]['id']}")
    world.site.api.settle()


def an_attachment(world: World) -> Ctx:
    ctx = a_volume(world)
    _attach(world, ctx)
    world.site.api.settle()
    return ctx | {"attachment": _of(world, ctx)[0]["id"]}


def _detach(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.delete(f"/brickyard/v1/attachments/{ctx['attachment']}"))


def _detached(world: World, ctx: Ctx) -> None:
    assert _of(world, ctx) == []
    assert world.site.api.volume(ctx["volume"])["status"] == "available"


KINDS = (
    Kind("attach", a_volume, _attach, _attached, root=True),
    Kind("detach", an_attachment, _detach, _detached, root=True),
)
