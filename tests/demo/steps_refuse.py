"""Refusals: by the coordinator before anything is made, by the store, and by the host that makes the volume."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from demo.api import Refused
from demo.opened import OpenWatch
from demo.place import DemoFailed
from demo.steps_make import PLAIN
from demo.story import MiB, Story
from demo.tools import run


@dataclass(frozen=True, slots=True)
class Bad:
    """An image that must not be used: what it claims to be, the rule that it breaks, a good one of the same format."""

    name: str
    disk_format: str
    rule: str
    path: Path
    decoy: Path


def tell(story: Story) -> None:
    with story.report.step("Refusals"):
        _unencrypted_type(story)
        marks = [_mark(story, name) for name in ("backing", "data", "hidden")]
        bad = _bad_images(story, marks)
        watch = OpenWatch(marks)
        try:
            for image in bad:
                _at_the_store(story, image)
                _at_the_volume(story, image)
            opened = watch.opened()
            if opened:
                raise DemoFailed(f"host files were opened: {sorted(opened)}")
            if not watch.works():
                raise DemoFailed("the watch on the host files does not see openings")
        finally:
            watch.close()
        story.check_books()
        story.report.proved("no host file that these images name was opened by anybody (inotify, tried out)")


def _unencrypted_type(story: Story) -> None:
    """400, naming type and remedy, and nothing was made."""
    before = story.api.usage()
    try:
        story.api.create_volume("refused", size=1, imageRef=story.images[0].id, volume_type=PLAIN)
    except Refused as refused:
        words = json.loads(refused.text)["badRequest"]["message"]
        if refused.status != 400 or PLAIN not in words or "encrypt" not in words:
            raise DemoFailed(f"refused with {refused}") from refused
    else:
        raise DemoFailed("an encrypted image became a volume of an unencrypted type")
    if story.api.usage() != before:
        raise DemoFailed("something was made although it was refused")
    story.check_books()
    story.report.proved(f"400 before anything is made: {words}")


def _mark(story: Story, name: str) -> Path:
    """A file of the host that everybody may read and nobody must."""
    path = story.place.root / f"host-file-{name}"
    path.write_bytes(b"a file of the host " * 4096)
    path.chmod(0o644)
    return path


def _bad_images(story: Story, marks: list[Path]) -> list[Bad]:
    folder = story.place.memory
    backing, data, hidden = marks
    decoys = {"qcow2": folder / "good.qcow2", "raw": folder / "good.raw"}
    run("qemu-img", "create", "-q", "-f", "qcow2", str(decoys["qcow2"]), "64M")
    decoys["raw"].write_bytes(b"plain " * MiB)
    found: list[Bad] = []
    for name, disk_format, rule, options in (
        ("qcow2 with a backing file", "qcow2", "backing file", ("-b", str(backing), "-F", "raw")),
        ("qcow2 with a data file", "qcow2", "external file", ("-o", f"data_file={data},data_file_raw=on")),
        ("qcow2 said to be raw", "raw", "signature of qcow", ("-b", str(hidden), "-F", "raw")),
    ):
        path = folder / f"bad-{len(found)}"
        run("qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "64M")
        found.append(Bad(name, disk_format, rule, path, decoys[disk_format]))
    return found


def _new_image(story: Story, bad: Bad) -> str:
    body = {"name": bad.name, "disk_format": bad.disk_format, "container_format": "bare"}
    return str(story.api.post("/image/v2/images", body)["id"])


def _at_the_store(story: Story, bad: Bad) -> None:
    """An upload is refused when its bytes are looked at; nothing of it is kept."""
    image = _new_image(story, bad)
    try:
        story.api.upload(f"/image/v2/images/{image}/file", bad.path)
    except Refused as refused:
        if bad.rule not in refused.text or not 400 <= refused.status < 500:
            raise DemoFailed(f"{bad.name}: the upload was refused with {refused}") from refused
    else:
        raise DemoFailed(f"{bad.name}: the store took it")
    if (story.site.images / "images" / image).exists() or (story.site.images / "incoming" / image).exists():
        raise DemoFailed(f"{bad.name}: the store kept it")
    story.api.delete(f"/image/v2/images/{image}")
    story.report.proved(f"{bad.name}: the upload is refused by rule, nothing is kept")


def _at_the_volume(story: Story, bad: Bad) -> None:
    """The store itself is lied to: a good image is replaced behind its back, with a matching checksum in the catalog.
    The host that makes the volume looks again."""
    image = _new_image(story, bad)
    story.api.upload(f"/image/v2/images/{image}/file", bad.decoy)
    _replace(story, image, bad.path)
    volume = story.api.create_volume(bad.name, size=1, imageRef=image, volume_type=PLAIN)
    story.kept[volume] = 1
    operation = story.api.settled(volume)
    status, told = story.api.volume(volume)["status"], story.api.messages(volume)
    if operation["state"] != "failed" or status != "error" or not any(bad.rule in text for text in told):
        raise DemoFailed(f"{bad.name}: operation {operation['state']}, volume {status}, messages {told}")
    story.report.proved(f"{bad.name}, smuggled into the store: volume in error; {told[0]}")
    story.api.delete(f"/v3/volumes/{volume}")
    story.api.done(volume)
    del story.kept[volume]
    story.api.delete(f"/image/v2/images/{image}")


def _replace(story: Story, image: str, path: Path) -> None:
    data, kept = path.read_bytes(), story.site.images / "images" / image
    kept.chmod(0o600)
    with kept.open("r+b") as file:
        file.truncate(0)
        file.write(data)
    database = sqlite3.connect(story.site.folder / "coordinator" / "coordinator.db", timeout=20)
    try:
        with database:
            database.execute(
                "UPDATE images SET size = ?, os_hash_value = ? WHERE id = ?",
                (len(data), hashlib.sha256(data).hexdigest(), image),
            )
    finally:
        database.close()
