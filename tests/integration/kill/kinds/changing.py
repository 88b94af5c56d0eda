"""Volumes that get another content or size, their snapshots, and their end."""

from __future__ import annotations

import os
from typing import Any

from tests.integration.kill.kinds.world import (
    GIB,
    Ctx,
    Kind,
    World,
    a_volume,
    asked,
)
from tests.support.images import MIB


def a_volume_and_an_image(world: World) -> Ctx:
    """The image holds other content than the volume."""
    ctx, content = a_volume(world), os.urandom(MIB)
    with world.file(ctx["volume"]).open("r+b") as out:
        out.write(bytes(reversed(content)))
    return ctx | {"content": content, "image": world.site.api.image("other", "raw", content)}


def _reimage(world: World, ctx: Ctx) -> None:
    body = {"os-reimage": {"image_id": ctx["image"]}}
    asked(lambda: world.site.api.post(f"/v3/volumes/{ctx['volume']}/action", body))


def _reimaged(world: World, ctx: Ctx) -> None:
    volume = world.site.api.volume(ctx["volume"])
    assert volume["status"] == "available", volume
    assert world.file(ctx["volume"]).stat().st_size == GIB
    assert world.head(ctx["volume"])[: 2 * MIB] == ctx["content"] + bytes(MIB)


def _extend(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.post(f"/v3/volumes/{ctx['volume']}/action", {"os-extend": {"new_size": 3}}))


def _extended(world: World, ctx: Ctx) -> None:
    volume = world.site.api.volume(ctx["volume"])
    assert (volume["status"], volume["size"]) == ("available", 3), volume
    assert world.file(ctx["volume"]).stat().st_size == 3 * GIB


def _snapshot(world: World, ctx: Ctx) -> None:
    body = {"snapshot": {"volume_id": ctx["volume"], "name": ctx["volume"]}}
    asked(lambda: world.site.api.post("/v3/snapshots", body))


def _snapshots(world: World, ctx: Ctx) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.site.api.get(f"/v3/snapshots?volume_id={ctx['volume']}")["snapshots"]
    return found


def _has_snapshot(world: World, ctx: Ctx) -> None:
    assert [one["status"] for one in _snapshots(world, ctx)] == ["available"]


def a_snapshot(world: World) -> Ctx:
    ctx = a_volume(world)
    _snapshot(world, ctx)
    world.site.api.settle()
    return ctx | {"snapshot": _snapshots(world, ctx)[0]["id"]}


def _delete_snapshot(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.delete(f"/v3/snapshots/{ctx['snapshot']}"))


def _no_snapshot(world: World, ctx: Ctx) -> None:
    assert _snapshots(world, ctx) == []


def _delete(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.delete(f"/v3/volumes/{ctx['volume']}"))


def deleted(world: World, ctx: Ctx) -> None:
    assert ctx["volume"] not in {volume["id"] for volume in world.site.api.volumes()}
    assert not world.file(ctx["volume"]).exists()


def a_changed_volume(world: World) -> Ctx:
    """A volume with a snapshot, whose content is another one by now."""
    ctx = a_snapshot(world)
    with world.file(ctx["volume"]).open("r+b") as out:
        out.write(b"later")
    return ctx


def _revert(world: World, ctx: Ctx) -> None:
    body = {"revert": {"snapshot_id": ctx["snapshot"]}}
    asked(lambda: world.site.api.post(f"/v3/volumes/{ctx['volume']}/action", body))


def _reverted(world: World, ctx: Ctx) -> None:
    assert world.site.api.volume(ctx["volume"])["status"] == "available"
    assert [one["status"] for one in _snapshots(world, ctx)] == ["available"]
    with world.file(ctx["volume"]).open("rb") as data:
        assert data.read(5) == bytes(5)


def _cascade(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.delete(f"/v3/volumes/{ctx['volume']}?cascade=true"))


def _all_deleted(world: World, ctx: Ctx) -> None:
    deleted(world, ctx)
    assert _snapshots(world, ctx) == []


KINDS = (
    Kind("reimage", a_volume_and_an_image, _reimage, _reimaged),
    Kind("extend", a_volume, _extend, _extended),
    Kind("snapshot", a_volume, _snapshot, _has_snapshot),
    Kind("delete-snapshot", a_snapshot, _delete_snapshot, _no_snapshot),
    Kind("delete", a_volume, _delete, deleted),
    Kind("revert", a_changed_volume, _revert, _reverted),
    Kind("cascade", a_snapshot, _cascade, _all_deleted),
)
