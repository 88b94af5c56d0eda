"""Volumes that are encrypted, made plain, and given another key."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.kill.kinds.world import (
    GIB,
    Ctx,
    Kind,
    World,
    a_volume,
    asked,
    named,
)
from tests.support.images import MIB, decrypted
from tests.support.luks import opens


def a_plain_volume(world: World) -> Ctx:
    """One with content, beside a type that would have it encrypted."""
    world.encrypted_type()
    ctx = a_volume(world)
    with world.file(ctx["volume"]).open("r+b") as out:
        out.write(world.content())
    return ctx


def an_encrypted_volume(world: World) -> Ctx:
    ctx = named(world)
    volume = world.site.api.made(ctx["name"], volume_type=world.encrypted_type(), imageRef=world.image())
    return ctx | {"volume": volume}


def _retype(name: str) -> Callable[[World, Ctx], None]:
    def act(world: World, ctx: Ctx) -> None:
        body = {"os-retype": {"new_type": name, "migration_policy": "on-demand"}}
        asked(lambda: world.site.api.post(f"/v3/volumes/{ctx['volume']}/action", body))

    return act


def _encrypted(world: World, ctx: Ctx) -> None:
    volume, file = world.site.api.volume(ctx["volume"]), world.file(ctx["volume"])
    assert (volume["status"], volume["volume_type"], volume["encrypted"]) == ("available", "secret", True), volume
    assert file.stat().st_size == GIB + 2 * MIB
    size, key = len(world.content()), world.key(ctx["volume"])
    assert decrypted(world.site.folder, file, key, size) == world.content()
    world.site.api.delete(f"/v3/volumes/{ctx['volume']}")
    world.site.api.settle()


def a_volume_with_a_key(world: World) -> Ctx:
    ctx = an_encrypted_volume(world)
    return ctx | {"key": world.key(ctx["volume"])}


def _rekey(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.post(f"/brickyard/v1/volumes/{ctx['volume']}/rekey", {}))


def _rekeyed(world: World, ctx: Ctx) -> None:
    assert not opens(world.file(ctx["volume"]), ctx["key"])
    _encrypted(world, ctx)


def _plain(world: World, ctx: Ctx) -> None:
    volume, file = world.site.api.volume(ctx["volume"]), world.file(ctx["volume"])
    assert (volume["status"], volume["encrypted"]) == ("available", False), volume
    assert file.stat().st_size == GIB
    with file.open("rb") as data:
        assert data.read(len(world.content())) == world.content()
    world.site.api.delete(f"/v3/volumes/{ctx['volume']}")
    world.site.api.settle()


KINDS = (
    Kind("encrypt", a_plain_volume, _retype("secret"), _encrypted),
    Kind("decrypt", an_encrypted_volume, _retype("__DEFAULT__"), _plain),
    Kind("rekey", a_volume_with_a_key, _rekey, _rekeyed),
)
