"""What an operator already has is taken over, and left again."""

from __future__ import annotations

import base64
import os
import subprocess

from tests.integration.kill.kinds.changing import deleted
from tests.integration.kill.kinds.world import (
    GIB,
    PASSPHRASE,
    Ctx,
    Kind,
    World,
    asked,
    available,
    numbers,
    the_one,
)
from tests.support.luks import opens


def a_foreign_file(world: World) -> Ctx:
    """A file that an operator put beside the volumes, owned as they are."""
    name = f"theirs-{next(numbers)}"
    folder = world.site.layout.volumes(world.site.volume_host) / "unmanaged"
    path = folder / name
    path.write_bytes(b"theirs")
    os.truncate(path, GIB)
    os.chown(path, folder.stat().st_uid, folder.stat().st_gid)
    pools = world.site.api.get("/v3/scheduler-stats/get_pools")["pools"]
    pool = next(one["name"] for one in pools if one["name"].startswith(world.site.volume_host))
    return {"name": name, "pool": pool, "file": path}


def _manage(world: World, ctx: Ctx) -> None:
    body = {"volume": {"host": ctx["pool"], "ref": {"source-name": ctx["name"]}, "name": ctx["name"]}}
    asked(lambda: world.site.api.post("/v3/manageable_volumes", body))


def _managed(world: World, ctx: Ctx) -> None:
    available(world, ctx)
    with world.file(the_one(world, ctx)["id"]).open("rb") as data:
        assert data.read(6) == b"theirs"
    assert not ctx["file"].exists()


def a_foreign_sealed_file(world: World) -> Ctx:
    """One that its operator's key opens, which is registered."""
    ctx = a_foreign_file(world) | {"type": world.encrypted_type()}
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--disable-locks", "--type", "luks1", "--key-file", "-"]
    subprocess.run([*argv, "--pbkdf-force-iterations", "1000", ctx["file"]], input=PASSPHRASE, check=True)
    body = {"key": {"type": "passphrase", "payload_b64": base64.b64encode(PASSPHRASE).decode(), "name": "registered"}}
    return ctx | {"key": world.site.api.post("/brickyard/v1/keys", body)["key"]["id"]}


def _manage_sealed(world: World, ctx: Ctx) -> None:
    ref = {"source-name": ctx["name"], "encryption-key-id": ctx["key"]}
    body = {"volume": {"host": ctx["pool"], "ref": ref, "name": ctx["name"], "volume_type": ctx["type"]}}
    asked(lambda: world.site.api.post("/v3/manageable_volumes", body))


def _managed_sealed(world: World, ctx: Ctx) -> None:
    available(world, ctx)
    volume = the_one(world, ctx)
    assert (volume["encrypted"], volume["encryption_key_id"] == ctx["key"]) == (True, False)
    assert opens(world.file(volume["id"]), PASSPHRASE)
    assert world.key(volume["id"]) == PASSPHRASE
    assert not ctx["file"].exists()
    world.site.api.delete(f"/brickyard/v1/keys/{ctx['key']}")
    world.site.api.delete(f"/v3/volumes/{volume['id']}")
    world.site.api.settle()


def a_managed_volume(world: World) -> Ctx:
    ctx = a_foreign_file(world)
    _manage(world, ctx)
    world.site.api.settle()
    return ctx | {"volume": the_one(world, ctx)["id"]}


def _unmanage(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.post(f"/v3/volumes/{ctx['volume']}/action", {"os-unmanage": None}))


def _unmanaged(world: World, ctx: Ctx) -> None:
    deleted(world, ctx)
    left = ctx["file"].with_name(f"volume-{ctx['volume']}")
    assert left.read_bytes()[:6] == b"theirs"
    left.unlink()


KINDS = (
    Kind("manage", a_foreign_file, _manage, _managed),
    Kind("manage-encrypted", a_foreign_sealed_file, _manage_sealed, _managed_sealed),
    Kind("unmanage", a_managed_volume, _unmanage, _unmanaged),
)
