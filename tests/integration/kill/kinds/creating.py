"""Volumes made: empty, from images, from other volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.kill.kinds.world import (
    PASSPHRASE,
    Ctx,
    Kind,
    World,
    asked,
    available,
    named,
    the_one,
)
from tests.support.images import decrypted
from tests.support.luks import opens


def creation(**fields: Callable[[World], Any]) -> Callable[[World, Ctx], None]:
    def act(world: World, ctx: Ctx) -> None:
        given = {name: value(world) for name, value in fields.items()}
        asked(lambda: world.site.api.create_volume(ctx["name"], **given))

    return act


def ready(*needs: Callable[[World], Any]) -> Callable[[World], Ctx]:
    def prepare(world: World) -> Ctx:
        for need in needs:
            need(world)
        return named(world)

    return prepare


def _from_image(world: World, ctx: Ctx) -> None:
    available(world, ctx)
    file = world.file(the_one(world, ctx)["id"])
    found = decrypted(world.site.folder, file, PASSPHRASE, len(world.content()))
    assert found == world.content()
    world.site.api.delete(f"/v3/volumes/{file.name}")
    world.site.api.settle()


def _refused(world: World, ctx: Ctx) -> None:
    volume = the_one(world, ctx)
    assert volume["status"] == "error", volume
    said = world.site.api.get("/v3/messages?limit=1000")["messages"]
    assert [one for one in said if one["resource_uuid"] == volume["id"]], said
    world.site.api.delete(f"/v3/volumes/{volume['id']}")
    world.site.api.settle()


def _cloned(world: World, ctx: Ctx) -> None:
    available(world, ctx)
    volume_id = the_one(world, ctx)["id"]
    assert world.head(volume_id) == world.head(world.data())
    world.site.api.delete(f"/v3/volumes/{volume_id}")
    world.site.api.settle()


def _cloned_with_own_key(world: World, ctx: Ctx) -> None:
    available(world, ctx)
    volume_id, source = the_one(world, ctx)["id"], world.secret_data()
    size, key = len(world.content()), world.key(volume_id)
    assert decrypted(world.site.folder, world.file(volume_id), key, size) == world.content()
    assert not opens(world.file(volume_id), world.key(source))
    assert opens(world.file(source), world.key(source))
    world.site.api.delete(f"/v3/volumes/{volume_id}")
    world.site.api.settle()


def a_secret_to_clone(world: World) -> Ctx:
    world.secret_data()
    return named(world)


_SECRET, _IMAGE = World.encrypted_type, World.image


def _wrong(world: World) -> str:
    return world.image(b"not this one")


KINDS = (
    Kind("create", named, creation(), available),
    Kind("create-encrypted", ready(_SECRET), creation(volume_type=_SECRET), available),
    Kind("from-image", ready(_SECRET, _IMAGE), creation(volume_type=_SECRET, imageRef=_IMAGE), _from_image),
    Kind("refused", ready(_SECRET, _wrong), creation(volume_type=_SECRET, imageRef=_wrong), _refused),
    Kind("clone", ready(World.data), creation(source_volid=World.data), _cloned),
    Kind("clone-encrypted", a_secret_to_clone, creation(source_volid=World.secret_data), _cloned_with_own_key),
)
