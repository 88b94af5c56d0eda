"""Volumes as devices of their host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

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


def an_open_one(world: World) -> Ctx:
    ctx = an_attachment(world)
    return ctx | {"held": os.open(_of(world, ctx)[0]["device"]["device"], os.O_RDWR)}


def _cut_off(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.delete(f"/brickyard/v1/attachments/{ctx['attachment']}?force=true"))


def _was_cut_off(world: World, ctx: Ctx) -> None:
    """Not even an agent that was killed in between has left the holder a way to the data."""
    try:
        _detached(world, ctx)
        with pytest.raises(OSError, match=r"space|error"):
            os.pwrite(ctx["held"], bytes(4096), 0)
    finally:
        os.close(ctx["held"])


KINDS = (
    Kind("attach", a_volume, _attach, _attached, root=True),
    Kind("detach", an_attachment, _detach, _detached, root=True),
    Kind("detach-forced", an_open_one, _cut_off, _was_cut_off, root=True),
)
