"""Everything is deleted, the site stops, and what was written to the disk is searched."""

from __future__ import annotations

import contextlib
from functools import partial

from demo.api import Refused
from demo.place import DemoFailed
from demo.prepare import Packed
from demo.running import wait_until
from demo.story import MiB, Story


def tell(story: Story) -> None:
    if story.place.on_loop:
        # What was deleted still stands in the blocks, so that nothing escapes the search.
        for step in (_delete, _stop, _search):
            step(story)
    else:
        for step in (_search, _delete, _stop):
            step(story)


def _delete(story: Story) -> None:
    with story.report.step("Delete all of it"):
        for snapshot in list(story.snapshots):
            story.api.delete(f"/v3/snapshots/{snapshot}")
            story.api.done(snapshot)
            del story.snapshots[snapshot]
        for volume in story.kept:
            story.api.delete(f"/v3/volumes/{volume}")
        for volume in list(story.kept):
            wait_until(f"volume {volume} gone", 60, partial(_gone, story, volume), story.site.check)
            del story.kept[volume]
        for image in story.images:
            _delete_image(story, image)
        story.check_books()
        left = list((story.site.images / "images").iterdir()) + list(story.api.get("/brickyard/v1/keys")["keys"])
        if left:
            raise DemoFailed(f"left after all was deleted: {left}")
        story.report.proved("no volume, snapshot, image or secret is left; quota counts nothing")


def _gone(story: Story, volume: str) -> bool:
    try:
        story.api.volume(volume)
    except Refused as refused:
        if refused.status == 404:
            return True
        raise
    return False


def _delete_image(story: Story, image: Packed) -> None:
    story.api.delete(f"/image/v2/images/{image.id}")
    with contextlib.suppress(Refused):
        story.api.get(f"/brickyard/v1/keys/{image.key_id}")
        raise DemoFailed(f"secret {image.key_id} outlived its image although it was to go with it")


def _stop(story: Story) -> None:
    with story.report.step("Stop"):
        if story.place.loops() and not story.place.on_loop:
            raise DemoFailed(f"loop devices are left: {story.place.loops()}")
        story.site.stop()
        left = [device for device, backing in story.place.loops() if backing != str(story.place.image)]
        if left:
            raise DemoFailed(f"loop devices are left: {left}")
        story.report.proved("coordinator and agents ended on SIGTERM; no process, no device of them is left")


def _search(story: Story) -> None:
    """The search is tried out first: it must find what we put there ourselves, and only that."""
    place, canary = story.place, story.source.canary
    with story.report.step("Search the disk for clear bytes") as step:
        control = place.home / "control"
        control.write_bytes(b"." * 4000 + canary + b"CONTROL")
        place.unmount()
        patterns = [canary, *story.secrets]
        step.bytes, hits = place.search(patterns)
        if len(hits) != 1:
            raise DemoFailed(f"expected to find the one canary put there as a trial, but found {len(hits)}: {hits[:9]}")
        control.unlink(missing_ok=True)
        where = "the unmounted file system, raw" if place.on_loop else "all files"
        story.report.proved(
            f"{step.bytes // MiB} MiB of {where}: none of the {story.source.count} canaries, no secret "
            "(one put there as a trial was found)"
        )
