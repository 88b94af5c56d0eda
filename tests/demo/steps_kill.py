"""kill -9 in the middle, twice; both times everything ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable

from demo.place import DemoFailed
from demo.steps_make import ENCRYPTED, prove_volume
from demo.story import GiB, Story


def tell(story: Story) -> None:
    site = story.site

    def kill_agent() -> str:
        pid = site.agent("host-b")
        site.kill(pid, lambda: site.agent("host-b"))
        return f"agent {pid} of host-b"

    def kill_coordinator() -> str:
        pid = site.coordinator
        site.kill(pid, lambda: site.coordinator)
        return f"coordinator {pid}"

    _killed(story, "agent", "kill -9 of the agent, converting", kill_agent)
    _killed(story, "coordinator", "kill -9 of the coordinator, creating", kill_coordinator)


def _killed(story: Story, what: str, title: str, kill: Callable[[], str]) -> None:
    image, name = story.images[what == "coordinator"], f"killed-{what}"
    with story.report.step(title) as step:
        with story.report.progress(name) as tellers:
            volume = story.api.create_volume(name, size=1, imageRef=image.id, volume_type=ENCRYPTED)
            story.kept[volume] = 1
            _until_in_the_middle(story, volume, tellers[name])
            if not (story.site.volumes / "partial" / volume).exists() or story.path(volume).exists():
                raise DemoFailed("the volume was not being made at the moment of the kill")
            told = kill()
            story.report.note(f"{told} killed in the middle, and another is in its place")
            story.api.done(volume, tellers[name])
        shown = [each for each in story.api.volumes() if each["name"] == name]
        if [(each["id"], each["status"]) for each in shown] != [(volume, "available")]:
            raise DemoFailed(f"after the kill there are: {shown}")
        step.bytes = GiB + prove_volume(story, volume, image)
        story.check_books()
        story.report.proved("available with the source's bytes; one volume, one file, nothing left over, quota right")


def _until_in_the_middle(story: Story, volume: str, tell_progress: Callable[[dict[str, object]], None]) -> None:
    for operation in story.api.watch(volume):
        tell_progress(operation)
        now = operation["progress"] or {}
        if operation["state"] != "running":
            raise DemoFailed(f"the volume was made before it could be disturbed: {operation['state']}")
        if now.get("phase") == "convert" and now["total"] and 0.1 < now["done"] / now["total"] < 0.8:
            return
