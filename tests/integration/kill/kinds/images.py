"""Images of the built-in catalog."""

from __future__ import annotations

from tests.integration.kill.kinds.world import (
    Ctx,
    Kind,
    World,
    asked,
)
from tests.support.api import Refused
from tests.support.images import MIB


def _upload(world: World, ctx: Ctx) -> None:
    try:
        asked(lambda: world.site.api.call("PUT", f"/image/v2/images/{ctx['image']}/file", b"x" * MIB))
    except Refused as refused:
        # Told that the transfer was lost; never that the image is wrong or missing.
        assert refused.status >= 500, refused  # noqa: PT017


def a_queued_image(world: World) -> Ctx:
    body = {"image": {"name": "raw", "disk_format": "raw"}}
    return {"image": world.site.api.post("/brickyard/v1/images", body)["image"]["id"]}


def _all_or_nothing(world: World, ctx: Ctx) -> None:
    """A user's connection does not outlive the coordinator; then the image waits for its bytes again."""
    path = f"/image/v2/images/{ctx['image']}"
    if world.site.api.get(path)["status"] == "queued":
        world.site.api.call("PUT", f"{path}/file", b"x" * MIB, patient=10)
    assert world.site.api.get(path)["status"] == "active"


def an_image(world: World) -> Ctx:
    return {"image": world.site.api.image("raw", "raw", b"x" * MIB)}


def _delete_image(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.delete(f"/image/v2/images/{ctx['image']}"))


def _no_image(world: World, ctx: Ctx) -> None:
    assert ctx["image"] not in {one["id"] for one in world.site.api.get("/image/v2/images")["images"]}


KINDS = (
    Kind("upload", a_queued_image, _upload, _all_or_nothing),
    Kind("delete-image", an_image, _delete_image, _no_image),
)
