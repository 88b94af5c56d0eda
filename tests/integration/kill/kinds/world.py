"""The site that operations are killed on, and what describes one of them."""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.api import AWAY
from tests.support.images import MIB, content_of, encrypted_qcow2
from tests.support.site import Site

GIB = 1 << 30
PASSPHRASE = b"correct horse battery staple"
Ctx = dict[str, Any]
numbers = itertools.count()


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
    return {"name": f"v{next(numbers)}"}


def a_volume(world: World) -> Ctx:
    return {"volume": world.site.api.made(f"v{next(numbers)}")}


def asked(call: Callable[[], Any]) -> None:
    """The coordinator may die before it answers; what it accepted it does all the same."""
    with suppress(*AWAY):
        call()


def the_one(world: World, ctx: Ctx) -> dict[str, Any]:
    found = [volume for volume in world.site.api.volumes() if volume["name"] == ctx["name"]]
    assert len(found) == 1, found
    return found[0]


def available(world: World, ctx: Ctx) -> None:
    volume = the_one(world, ctx)
    assert (volume["status"], volume["size"]) == ("available", 1), volume
