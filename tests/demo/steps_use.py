"""Snapshot, clone, extend, attach, each looked at from outside."""

from __future__ import annotations

import hashlib
from pathlib import Path

from demo import proof
from demo.place import DemoFailed
from demo.prepare import SOURCE_BYTES
from demo.running import wait_until
from demo.steps_make import prove_volume
from demo.story import GiB, Story

_CHUNK = 4 << 20


def tell(story: Story) -> None:
    first, second = list(story.kept)[:2]
    _copy(story, first)
    _extend(story, second)
    _attach(story, first)


def _copy(story: Story, origin: str) -> None:
    image = story.images[0]
    with story.report.step("Snapshot, and a clone of it") as step:
        body = {"snapshot": {"name": "of-the-first", "volume_id": origin}}
        snapshot = story.api.post("/v3/snapshots", body)["snapshot"]["id"]
        story.snapshots[snapshot] = 1
        with story.report.progress("snapshot", "clone") as tellers:
            story.api.done(snapshot, tellers["snapshot"])
            clone = story.api.create_volume("clone", size=1, snapshot_id=snapshot)
            story.kept[clone] = 1
            story.api.done(clone, tellers["clone"])
        secret = proof.own_secret(story.site, story.api.volume(origin)["encryption_key_id"])
        path = story.site.volumes / "snapshots" / snapshot
        step.bytes = 2 * GiB + proof.content(story.place, path, secret, story.source)
        step.bytes += prove_volume(story, clone, image, brief=True, rekeyed=True)
        if len({story.api.volume(volume)["encryption_key_id"] for volume in story.kept}) != len(story.kept):
            raise DemoFailed("two volumes share a secret")
        story.check_books()
        story.report.proved("both hold the source's bytes; the clone opens with a secret of its own alone")


def _extend(story: Story, volume: str) -> None:
    with story.report.step("Extend to 2 GiB") as step:
        story.api.post(f"/v3/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
        story.api.done(volume)
        story.kept[volume] = 2
        if story.api.volume(volume)["size"] != 2:
            raise DemoFailed("the volume was not extended")
        step.bytes = prove_volume(story, volume, story.images[1], gib=2, brief=True)
        story.check_books()
        story.report.proved("2 GiB inside; the first bytes are as before")


def _attach(story: Story, volume: str) -> None:
    with story.report.step("Attach to this host, read, detach") as step:
        body = {"volume_id": volume, "host_id": "host-b"}
        attachment = story.api.post("/brickyard/v1/attachments", body)["attachment"]["id"]
        operation = story.api.settled(volume)
        if operation["state"] != "done":
            error = operation["error"] or {}
            if "loop" in story.required:
                raise DemoFailed(f"BRICKYARD_REQUIRE names loop, but the volume could not be attached: {error}")
            story.report.note(f"SKIPPED, this host can not attach: {error.get('message') or error}")
            return
        device = story.api.get(f"/brickyard/v1/attachments/{attachment}")["attachment"]["device"]
        raw = Path(device["raw_device"])
        backing = Path(f"/sys/block/{raw.name}/loop/backing_file")
        if not Path(backing.read_text().strip()).samefile(story.path(volume)):
            raise DemoFailed(f"{raw} stands on {backing.read_text()}")
        if device["raw"]:
            story.report.note(f"no dm-crypt in this kernel: {raw} is the raw device, decrypted here by qemu-img")
            secret = proof.own_secret(story.site, story.api.volume(volume)["encryption_key_id"])
            step.bytes = proof.content(story.place, raw, secret, story.source)
        else:
            step.bytes = _read_clear(story, Path(device["device"]))
        story.report.proved(f"{device['device']} gives the source's bytes")
        story.api.delete(f"/brickyard/v1/attachments/{attachment}")
        story.api.done(volume)
        _nothing_left(story, volume, raw, attachment)


def _read_clear(story: Story, device: Path) -> int:
    digest = hashlib.sha256()
    with device.open("rb") as file:
        left = SOURCE_BYTES
        while left:
            piece = file.read(min(_CHUNK, left))
            if not piece:
                raise DemoFailed(f"{device} ends early")
            digest.update(piece)
            left -= len(piece)
        if digest.hexdigest() != story.source.sha256:
            raise DemoFailed(f"the clear bytes of {device} are not those of the source")
        if file.seek(0, 2) != GiB:
            raise DemoFailed(f"{device} has {file.tell()} bytes instead of {GiB}")
    return SOURCE_BYTES


def _nothing_left(story: Story, volume: str, raw: Path, attachment: str) -> None:
    """What the kernel says after `detached`: no loop device on the file, no mapping of the attachment."""

    def gone() -> bool:
        on_it = [device for device, backing in story.place.loops() if backing.endswith(volume)]
        names = [name.read_text().strip() for name in Path("/sys/block").glob("dm-*/dm/name")]
        return not on_it and not [name for name in names if attachment in name]

    # The kernel's own word must be there at once; nothing is waited for.
    if not gone():
        raise DemoFailed(f"{raw} or its mapping is still there after the volume was told detached")
    wait_until("volume available", 5, lambda: story.api.volume(volume)["status"] == "available", story.site.check)
    story.check_books()
    story.report.proved(f"detached: sysfs shows no file on {raw}, and no mapping")
