"""The operations that are killed at every fault point: what each needs, does, and must have done in the end."""

from __future__ import annotations

import base64
import itertools
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.api import AWAY, Refused
from tests.support.images import MIB, content_of, decrypted, encrypted_qcow2
from tests.support.luks import opens
from tests.support.site import Site

GIB = 1 << 30
PASSPHRASE = b"correct horse battery staple"
Ctx = dict[str, Any]
_numbers = itertools.count()


@dataclass
class World:
    """A site, and what its tests share: images and a type, made when they are first needed."""

    site: Site
    shared: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    def encrypted_type(self) -> str:
        return str(self.once("type", self.site.api.encrypted_type))

    def content(self) -> bytes:
        return bytes(self.once("content", content_of))

    def qcow2(self, more: str = "") -> bytes:
        def make() -> bytes:
            return encrypted_qcow2(self.site.folder, self.content(), PASSPHRASE, more)

        return bytes(self.once(f"qcow2-{more}", make))

    def image(self, passphrase: bytes = PASSPHRASE, more: str = "") -> str:
        """An encrypted image, registered with this passphrase, right or wrong; `more` are options of its format."""
        secret = {"type": "passphrase", "payload_b64": base64.b64encode(passphrase).decode()}

        def register() -> str:
            size = len(self.content())
            return self.site.api.image("disk", "qcow2", self.qcow2(more), secret=secret, decrypt_size=size)

        return str(self.once(f"image-{passphrase!r}-{more}", register))

    def data(self) -> str:
        """A volume with data in it."""

        def make() -> str:
            volume_id = self.site.api.made("data")
            with self.file(volume_id).open("r+b") as out:
                for at in range(0, 256 * MIB, 64 * MIB):
                    out.seek(at)
                    out.write(os.urandom(MIB) * 64)
            return volume_id

        return str(self.once("data", make))

    def file(self, volume_id: str) -> Path:
        return self.site.layout.volumes(self.site.volume_host) / "volumes" / volume_id

    def head(self, volume_id: str) -> bytes:
        with self.file(volume_id).open("rb") as data:
            return data.read(256 * MIB)

    def secret_data(self) -> str:
        """An encrypted volume with the content of the image."""

        def make() -> str:
            return self.site.api.made("secret", volume_type=self.encrypted_type(), imageRef=self.image())

        return str(self.once("secret-data", make))

    def key(self, volume_id: str) -> bytes:
        """What opens the volume, by the key that the API names."""
        return self.site.truths.opening(self.site.api.volume(volume_id)["encryption_key_id"])


@dataclass(frozen=True)
class Kind:
    """`prepare` before a fault is armed, `act` asks for the operation, `ended` checks what it came to."""

    name: str
    prepare: Callable[[World], Ctx]
    act: Callable[[World, Ctx], None]
    ended: Callable[[World, Ctx], None]
    root: bool = False


def named(world: World) -> Ctx:
    return {"name": f"v{next(_numbers)}"}


def a_volume(world: World) -> Ctx:
    return {"volume": world.site.api.made(f"v{next(_numbers)}")}


def asked(call: Callable[[], Any]) -> None:
    """The coordinator may die before it answers; what it accepted it does all the same."""
    with suppress(*AWAY):
        call()


def _the_one(world: World, ctx: Ctx) -> dict[str, Any]:
    found = [volume for volume in world.site.api.volumes() if volume["name"] == ctx["name"]]
    assert len(found) == 1, found
    return found[0]


def _create(**fields: Callable[[World], Any]) -> Callable[[World, Ctx], None]:
    def act(world: World, ctx: Ctx) -> None:
        given = {name: value(world) for name, value in fields.items()}
        asked(lambda: world.site.api.create_volume(ctx["name"], **given))

    return act


def _ready(*needs: Callable[[World], Any]) -> Callable[[World], Ctx]:
    def prepare(world: World) -> Ctx:
        for need in needs:
            need(world)
        return named(world)

    return prepare


def _available(world: World, ctx: Ctx) -> None:
    volume = _the_one(world, ctx)
    assert (volume["status"], volume["size"]) == ("available", 1), volume


def _from_image(world: World, ctx: Ctx) -> None:
    _available(world, ctx)
    file = world.file(_the_one(world, ctx)["id"])
    found = decrypted(world.site.folder, file, PASSPHRASE, len(world.content()))
    assert found == world.content()
    world.site.api.delete(f"/v3/volumes/{file.name}")
    world.site.api.settle()


def _refused(world: World, ctx: Ctx) -> None:
    volume = _the_one(world, ctx)
    assert volume["status"] == "error", volume
    said = world.site.api.get("/v3/messages?limit=1000")["messages"]
    assert [one for one in said if one["resource_uuid"] == volume["id"]], said
    world.site.api.delete(f"/v3/volumes/{volume['id']}")
    world.site.api.settle()


def _cloned(world: World, ctx: Ctx) -> None:
    _available(world, ctx)
    volume_id = _the_one(world, ctx)["id"]
    assert world.head(volume_id) == world.head(world.data())
    world.site.api.delete(f"/v3/volumes/{volume_id}")
    world.site.api.settle()


def _cloned_with_own_key(world: World, ctx: Ctx) -> None:
    _available(world, ctx)
    volume_id, source = _the_one(world, ctx)["id"], world.secret_data()
    size, key = len(world.content()), world.key(volume_id)
    assert decrypted(world.site.folder, world.file(volume_id), key, size) == world.content()
    assert not opens(world.file(volume_id), world.key(source))
    assert opens(world.file(source), world.key(source))
    world.site.api.delete(f"/v3/volumes/{volume_id}")
    world.site.api.settle()


def a_secret_to_clone(world: World) -> Ctx:
    world.secret_data()
    return named(world)


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


def _deleted(world: World, ctx: Ctx) -> None:
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
    _deleted(world, ctx)
    assert _snapshots(world, ctx) == []


def a_foreign_file(world: World) -> Ctx:
    """A file that an operator put beside the volumes, owned as they are."""
    name = f"theirs-{next(_numbers)}"
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
    _available(world, ctx)
    with world.file(_the_one(world, ctx)["id"]).open("rb") as data:
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
    _available(world, ctx)
    volume = _the_one(world, ctx)
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
    return ctx | {"volume": _the_one(world, ctx)["id"]}


def _unmanage(world: World, ctx: Ctx) -> None:
    asked(lambda: world.site.api.post(f"/v3/volumes/{ctx['volume']}/action", {"os-unmanage": None}))


def _unmanaged(world: World, ctx: Ctx) -> None:
    _deleted(world, ctx)
    left = ctx["file"].with_name(f"volume-{ctx['volume']}")
    assert left.read_bytes()[:6] == b"theirs"
    left.unlink()


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


_SECRET, _IMAGE = World.encrypted_type, World.image


def _wrong(world: World) -> str:
    return world.image(b"not this one")


KINDS = {
    kind.name: kind
    for kind in (
        Kind("create", named, _create(), _available),
        Kind("create-encrypted", _ready(_SECRET), _create(volume_type=_SECRET), _available),
        Kind("from-image", _ready(_SECRET, _IMAGE), _create(volume_type=_SECRET, imageRef=_IMAGE), _from_image),
        Kind("refused", _ready(_SECRET, _wrong), _create(volume_type=_SECRET, imageRef=_wrong), _refused),
        Kind("clone", _ready(World.data), _create(source_volid=World.data), _cloned),
        Kind("clone-encrypted", a_secret_to_clone, _create(source_volid=World.secret_data), _cloned_with_own_key),
        Kind("encrypt", a_plain_volume, _retype("secret"), _encrypted),
        Kind("decrypt", an_encrypted_volume, _retype("__DEFAULT__"), _plain),
        Kind("rekey", a_volume_with_a_key, _rekey, _rekeyed),
        Kind("reimage", a_volume_and_an_image, _reimage, _reimaged),
        Kind("extend", a_volume, _extend, _extended),
        Kind("snapshot", a_volume, _snapshot, _has_snapshot),
        Kind("delete-snapshot", a_snapshot, _delete_snapshot, _no_snapshot),
        Kind("delete", a_volume, _delete, _deleted),
        Kind("revert", a_changed_volume, _revert, _reverted),
        Kind("cascade", a_snapshot, _cascade, _all_deleted),
        Kind("manage", a_foreign_file, _manage, _managed),
        Kind("manage-encrypted", a_foreign_sealed_file, _manage_sealed, _managed_sealed),
        Kind("unmanage", a_managed_volume, _unmanage, _unmanaged),
        Kind("attach", a_volume, _attach, _attached, root=True),
        Kind("detach", an_attachment, _detach, _detached, root=True),
        Kind("upload", a_queued_image, _upload, _all_or_nothing),
        Kind("delete-image", an_image, _delete_image, _no_image),
    )
}
