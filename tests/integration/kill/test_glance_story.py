"""The life of volumes among a real Keystone, Glance and Barbican, by the commands that people type; kills at each step.

Images are uploaded, become volumes (encrypted, plain, encrypted of a plain image), images of those, volumes of these;
they get another encryption and back, other keys, and go. Coordinator and agent die at each point that they pass on the
way, one after another. The content is compared each time; secrets and clear content are looked for everywhere.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.canary import Watcher, marks
from tests.support.cloud import Cloud, GlanceSite
from tests.support.cloud import cloud as standing
from tests.support.harm import MIDWAY, harmed
from tests.support.images import MIB, decrypted, encrypted_qcow2, qemu_img
from tests.support.luks import opens

pytestmark = [
    pytest.mark.kill,
    pytest.mark.root,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img, cryptsetup"
    ),
]
GIB = 1 << 30
COORDINATOR, HOST = "coordinator", "host-a"
Chains = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""Of each step: where the coordinator dies, and where the agent."""

_ACCEPTED = ("coordinator.accepted", "coordinator.step.begin", "coordinator.job.before-post",
             "coordinator.job.result-in-hand")  # fmt: skip
_ENDS = ("coordinator.step.committed", "coordinator.operation.ended")
"""Who has died at the one finds nothing left to do, and so does not come to the other: they take turns."""
_BEFORE = ("agent.job.journaled", "agent.job.resumed", "agent.job.started")
_AFTER = ("agent.job.effect-done", "agent.job.finished", "agent.job.acknowledged")
_COPY, _SLOTS = ("agent.job.checkpointed",), ("agent.luks.key-added", "agent.luks.key-dropped")
_SWITCH = ("agent.recrypt.copied", "agent.recrypt.decided", "agent.recrypt.replaced")
_INNER: Mapping[str, Sequence[str]] = {
    "sealed volume": _COPY, "open volume": (), "sealed volume of the open image": _COPY,
    "image of the sealed volume": (MIDWAY,), "image of the open volume": (),
    "all that the key opens gets another": _SLOTS,
    "volume of the sealed image": (MIDWAY, *_COPY), "volume of the open image": (),
    "encrypted": _SWITCH, "plain again": _SWITCH, "another key": _SLOTS,
    "sealed volume deleted": (), "open volume deleted": (),
}  # fmt: skip
EVERYWHERE: Chains = {
    step: ((*_ACCEPTED, _ENDS[number % 2]), (*_BEFORE, *inner, *_AFTER))
    for number, (step, inner) in enumerate(_INNER.items())
}
SOMEWHERE: Chains = {
    "sealed volume": (["coordinator.accepted"], ["agent.job.checkpointed"]),
    "image of the sealed volume": (["coordinator.job.result-in-hand"], [MIDWAY]),
    "all that the key opens gets another": (["coordinator.job.before-post"], ["agent.luks.key-dropped"]),
    "volume of the sealed image": (["coordinator.step.begin"], ["agent.job.journaled", "agent.job.resumed"]),
    "encrypted": (["coordinator.operation.ended"], ["agent.recrypt.decided"]),
    "plain again": (["coordinator.step.committed"], ["agent.recrypt.replaced", "agent.job.finished"]),
    "another key": (["coordinator.accepted"], ["agent.luks.key-added"]),
    "sealed volume deleted": (["coordinator.job.result-in-hand"], ["agent.job.started", "agent.job.effect-done"]),
}


def content_with(mark: bytes) -> bytes:
    """Half data, half holes; each page of the data shows the mark."""
    data = bytearray(8 * MIB)
    for at in range(0, len(data), 4 * MIB):
        for page in range(at, at + 2 * MIB, 4096):
            data[page : page + 4096] = mark + os.urandom(4096 - len(mark))
    return bytes(data)


@dataclass
class Scene:
    """`secrets` are all that were come across: a passphrase of a user, and the keys of volumes."""

    cloud: Cloud
    folder: Path
    watcher: Watcher
    wanted: list[bytes]
    passphrase: bytes
    hidden: bytes
    shown: bytes
    secrets: set[bytes] = field(default_factory=set)

    @property
    def site(self) -> GlanceSite:
        return self.cloud.site

    def know(self, secret: bytes) -> None:
        if secret not in self.secrets:
            self.secrets.add(secret)
            self.wanted += marks(secret)

    def payload(self, key_id: str, who: str = "ann") -> bytes | None:
        """What Barbican gives that user."""
        assert self.cloud.secrets is not None
        try:
            return self.cloud.secrets.payload(key_id, token=self.cloud.token(who))
        except urllib.error.HTTPError as error:
            if error.code not in (403, 404):
                raise
            return None

    def opening(self, volume: Mapping[str, Any]) -> bytes:
        """What opens a volume, as Barbican has it for its owner."""
        found: list[bytes] = []

        def deposited() -> None:
            key_id = self.site.api.volume(volume["id"])["encryption_key_id"]
            value = self.payload(key_id)
            assert value is not None
            assert self.cloud.secrets is not None
            meta = self.cloud.secrets.call("GET", f"/secrets/{key_id}", token=self.cloud.token())
            found[:] = [value if meta["secret_type"] == "passphrase" else value.hex().encode()]
            self.know(value)

        self.site.truths.eventually(deposited, 120)
        return found[0]

    def at_barbican(self) -> list[Any]:
        assert self.cloud.secrets is not None
        token = self.cloud.token("brickyard", "service")
        return list(self.cloud.secrets.call("GET", "/secrets?limit=100", token=token)["secrets"])

    def files(self) -> Iterator[Path]:
        """Of the site, and of the services beside it."""
        assert self.cloud.secrets is not None
        for top in (self.site.folder, self.cloud.images.folder, self.cloud.stone.folder, self.cloud.secrets.folder):
            yield from (path for path in top.rglob("*") if path.is_file() and not path.is_symlink())

    def told(self) -> dict[Path | str, set[bytes]]:
        """Where secrets and clear content are found: in files, and in what commands and calls were answered."""
        answers = "\0".join(self.cloud.said).encode() + b"\0".join(self.site.api.bodies)
        clear, every = [self.hidden, self.shown], [mark for secret in self.secrets for mark in marks(secret)]
        found: dict[Path | str, set[bytes]] = {"answers": {mark for mark in (*every, *clear) if mark in answers}}
        for path in self.files():
            with suppress(FileNotFoundError):
                large = path.stat().st_size > 64 * MIB
                found[path] = _those_in(path, [*(self.secrets if large else every), *clear])
        return {place: seen for place, seen in found.items() if seen}


def _those_in(path: Path, wanted: Sequence[bytes]) -> set[bytes]:
    found, longest, tail = set[bytes](), max(map(len, wanted)), b""
    with path.open("rb") as file:
        while block := file.read(16 * MIB):
            text = tail + block
            if text.count(0) != len(text):
                found |= {mark for mark in wanted if mark in text}
            tail = block[-longest:]
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    name = os.urandom(9).hex()
    phrase, hidden, shown = (f"Canary-{name}-{what}".encode() for what in ("passphrase", "hidden", "shown"))
    debug = ("log.level=debug",)
    sets = (*debug, "keys.barbican.interface=public", "keys.barbican.interval_s=0.3", "keys.barbican.timeout_s=120")
    make = partial(GlanceSite, sets=sets, agent_sets=debug)
    wanted = [*marks(phrase), hidden, shown]
    watcher = Watcher(wanted, pause_s=0.25)
    with watcher.watching(), standing(tmp_path_factory.mktemp("cloud"), make, secrets=True) as made:
        made.site.api.encrypted_type()
        made.site.api.post("/v3/types", {"volume_type": {"name": "plain"}})
        yield Scene(made, tmp_path_factory.mktemp("mine"), watcher, wanted, phrase, hidden, shown, {phrase})


@dataclass
class Story:
    scene: Scene
    chains: Chains

    def __post_init__(self) -> None:
        self.cloud, self.site, self.api = self.scene.cloud, self.scene.site, self.scene.site.api
        self.sealed, self.open = content_with(self.scene.hidden), content_with(self.scene.shown)

    def do(self, step: str, *words: str, who: str = "ann") -> None:
        """A command; its processes die meanwhile, so that what it says counts only where none does."""
        coordinator, agent = self.chains.get(step, ((), ()))
        done = harmed(self.site, {COORDINATOR: coordinator, HOST: agent}, lambda: self.cloud.type(*words, who=who))
        assert coordinator or done.code == 0, (step, done.out, done.err, self.site.logs())
        self.api.settle(300)
        self.site.clean()

    def volume(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.api.volumes() if one["name"] == name]
        assert found["status"] == "available", (found, self.api.get("/v3/messages"), self.site.logs())
        return found

    def image(self, name: str) -> dict[str, Any]:
        found = self.cloud.images.call("GET", f"/v2/images?name={name}", token=self.cloud.token())["images"]
        assert len(found) == 1, found
        image = self.cloud.image(found[0]["id"])
        assert image["status"] == "active", (image, self.site.logs())
        return image

    def is_sealed(self, name: str, content: bytes) -> bytes:
        """It holds the content, encrypted by its own key alone; returns what opens it."""
        volume = self.volume(name)
        assert volume["encrypted"], volume
        key, path = self.scene.opening(volume), self.site.volume(volume["id"])
        assert opens(path, key)
        _same(decrypted(self.scene.folder, path, key, len(content)), content)
        return key

    def is_open(self, name: str, content: bytes) -> None:
        volume = self.volume(name)
        assert not volume["encrypted"], volume
        with self.site.volume(volume["id"]).open("rb") as file:
            _same(file.read(len(content)), content)
            assert not any(file.read(MIB))
        assert self.site.volume(volume["id"]).stat().st_size == GIB

    def is_image_of(self, image: str, volume: str) -> dict[str, Any]:
        found = self.image(image)
        with self.site.volume(self.volume(volume)["id"]).open("rb") as file:
            assert hashlib.file_digest(file, "sha512").hexdigest() == found["os_hash_value"]
        return found

    def images(self) -> str:
        """Two images, uploaded by their owner, and the secret of the one; its id."""
        folder, run = self.scene.folder, self.cloud.run
        (folder / "phrase").write_bytes(self.scene.passphrase)
        register = ("brickyard", "key", "register", "--file", str(folder / "phrase"), "--name", "registered", "--json")
        key = str(run(*register)["id"])
        (folder / "sealed").write_bytes(encrypted_qcow2(folder, self.sealed, self.scene.passphrase))
        run("image", "create", "--file", str(folder / "sealed"), "--disk-format", "qcow2", "sealed", "-f", "json",
            "--property", f"os_encrypt_key_id={key}", "--property", "os_encrypt_format=LUKSv1",
            "--property", f"os_decrypt_size={len(self.sealed)}")  # fmt: skip
        (folder / "raw").write_bytes(self.open)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "open")
        run("image", "create", "--file", str(folder / "open"), "--disk-format", "qcow2", "open", "-f", "json")
        return key

    def tell(self) -> None:
        key, do, phrase = self.images(), self.do, self.scene.passphrase
        of_sealed = ("volume", "create", "--type", "secret", "--size", "1", "--image")
        of_open = ("volume", "create", "--type", "plain", "--size", "1", "--image")
        do("sealed volume", *of_sealed, "sealed", "s1")
        assert self.is_sealed("s1", self.sealed) == phrase, "a copy of the image's"
        do("open volume", *of_open, "open", "o1")
        self.is_open("o1", self.open)
        do("sealed volume of the open image", *of_sealed, "open", "s3")
        self.is_sealed("s3", self.open)
        do("image of the sealed volume", "image", "create", "--volume", "s1", "s1-image")
        image = self.is_image_of("s1-image", "s1")
        assert (image["os_encrypt_format"], image["size"]) == ("LUKSv1", GIB + 2 * MIB)
        do("image of the open volume", "image", "create", "--disk-format", "qcow2", "--volume", "o1", "o1-image")
        do("all that the key opens gets another", "brickyard", "key", "replace", key, "--yes", who="boss")
        assert self.is_sealed("s1", self.sealed) != phrase
        assert not opens(self.site.volume(self.volume("s1")["id"]), phrase)
        do("volume of the sealed image", *of_sealed, "s1-image", "s2")
        assert self.is_sealed("s2", self.sealed) == phrase
        do("volume of the open image", *of_open, "o1-image", "o2")
        self.is_open("o2", self.open)
        do("encrypted", "volume", "set", "--type", "secret", "--migration-policy", "on-demand", "o2")
        self.is_sealed("o2", self.open)
        assert not _those_in(self.site.volume(self.volume("o2")["id"]), [self.scene.shown])
        do("plain again", "volume", "set", "--type", "plain", "--migration-policy", "on-demand", "o2")
        self.is_open("o2", self.open)
        do("another key", "brickyard", "volume", "rekey", "--wait", "s2")
        assert self.is_sealed("s2", self.sealed) != phrase
        assert not opens(self.site.volume(self.volume("s2")["id"]), phrase)
        self.clear_only_in("o1", "o2")
        assert len(self.scene.at_barbican()) == 3, "one for each encrypted volume"
        do("sealed volume deleted", "volume", "delete", "s1")
        do("open volume deleted", "volume", "delete", "o1")
        self.is_sealed("s2", self.sealed)
        do("the others deleted", "volume", "delete", "s2", "s3", "o2")
        self.cloud.run("image", "delete", "sealed", "open", "s1-image", "o1-image")
        self.nothing_is_left()
        self.cloud.run("brickyard", "key", "delete", "registered", "--yes")

    def clear_only_in(self, *plain: str) -> None:
        """Nothing secret is found anywhere; the clear content of the open image only where that lies open."""
        places = {self.site.volume(self.volume(name)["id"]) for name in plain}
        shown = [self.image(name)["id"] for name in ("open", "o1-image")]
        places |= {path for path in self.scene.files() if path.name in shown}
        assert len(places) == len(plain) + len(shown)
        assert self.scene.told() == {place: {self.scene.shown} for place in places}
        assert not self.scene.watcher.found

    def nothing_is_left(self) -> None:
        """Of images that were deleted elsewhere their keys go within a minute or so."""
        rows = self.site.truths.rows

        def gone() -> None:
            assert not rows("SELECT * FROM registered_images")
            assert self.scene.at_barbican() == []

        self.site.truths.eventually(gone, 180)
        self.site.clean()
        assert self.api.volumes() == []
        assert len(self.api.get("/brickyard/v1/keys")["keys"]) == 1


def _same(found: bytes, wanted: bytes) -> None:
    assert hashlib.sha256(found).digest() == hashlib.sha256(wanted).digest()


def test_a_story_with_a_kill_at_each_step(scene: Scene) -> None:
    Story(scene, SOMEWHERE).tell()


def test_a_story_with_a_kill_at_each_point_of_each_step(scene: Scene) -> None:
    Story(scene, EVERYWHERE).tell()


@pytest.mark.parametrize("point", ["coordinator.image.noted", "coordinator.image.registered"])
def test_an_image_that_nobody_began_to_send_is_withdrawn_with_its_key(scene: Scene, point: str) -> None:
    """Its user has no answer and may ask again at once; what is left goes when no call can be at it any more."""
    site, cloud = scene.site, scene.cloud
    volume = cloud.run("volume", "create", "--type", "secret", "--size", "1", "mine", "-f", "json")["id"]
    assert site.settled(volume)["status"] == "available"
    scene.opening(site.api.volume(volume))
    site.clean()
    upload = ("image", "create", "--volume", volume, "back")
    done = harmed(site, {COORDINATOR: [point]}, lambda: cloud.type(*upload))
    assert done.code != 0
    (row,) = site.truths.rows("SELECT image_id, key_id FROM registered_images")
    known = [one["id"] for one in cloud.images.call("GET", "/v2/images", token=cloud.token())["images"]]
    assert known == ([row["image_id"]] if point.endswith("registered") else [])
    site.clean()
    assert site.api.volume(volume)["status"] == "available"
    with closing(sqlite3.connect(site.layout.coordinator_state / "coordinator.db", timeout=60)) as db, db:
        db.execute("UPDATE registered_images SET created_at = '2020-01-01 00:00:00.000000'")

    def withdrawn() -> None:
        assert not site.truths.rows("SELECT * FROM registered_images")

    site.truths.eventually(withdrawn, 120)
    assert cloud.images.call("GET", "/v2/images", token=cloud.token())["images"] == []
    assert not site.truths.rows("SELECT id FROM secrets WHERE id = ?", row["key_id"])
    cloud.run("volume", "delete", volume)
    site.api.settle(60)
    site.clean()
