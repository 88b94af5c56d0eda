"""The life of an encrypted volume, with a process killed at each step.

Image, volume, image of it, second volume, another encryption and back, another key, a copy with a key of its own,
deletion: the content is compared each time, and nothing is left at the end.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.kill.kinds.world import World, asked
from tests.support.images import decrypted
from tests.support.luks import opens
from tests.support.site import Site

pytestmark = [
    pytest.mark.kill,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img, cryptsetup"
    ),
]
COORDINATOR, VOLUMES = "coordinator", "host-b"
POINTS = [
    (COORDINATOR, "coordinator.accepted"),
    (COORDINATOR, "coordinator.job.before-post"),
    (COORDINATOR, "coordinator.job.result-in-hand"),
    (COORDINATOR, "coordinator.operation.ended"),
    (VOLUMES, "agent.job.journaled"),
    (VOLUMES, "agent.job.started"),
    (VOLUMES, "agent.job.effect-done"),
    (VOLUMES, "agent.job.finished"),
]


@pytest.fixture
def world() -> Iterator[World]:
    site = Site()
    try:
        site.start()
        yield World(site)
    finally:
        site.close()


def killed(world: World, part: str, point: str, act: Callable[[], Any]) -> None:
    """Ask for something, kill the process where it passes that point, start it again, and wait until all is stable."""
    site = world.site
    site.clean()
    site.parts[part].arm(point)
    with ThreadPoolExecutor(1) as user:
        call = user.submit(asked, act)
        assert site.parts[part].died(120) == -signal.SIGKILL, site.parts[part].tail()
        site.restart(part)
        call.result(60)
    site.api.settle(120)
    site.clean()


def one(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (thing,) = [thing for thing in found if thing["name"] == name]
    return thing


@pytest.mark.parametrize(("part", "point"), POINTS, ids=str)
def test_the_life_of_an_encrypted_volume(world: World, part: str, point: str) -> None:
    api, content = world.site.api, world.content()
    secret, other, image = world.encrypted_type(), api.encrypted_type("other", "luks2"), world.image()

    def holds(name: str) -> dict[str, Any]:
        volume = one(api.volumes(), name)
        assert (volume["status"], volume["encrypted"]) == ("available", True), volume
        clear = decrypted if volume["volume_type"] == secret else None
        file, key = world.file(volume["id"]), world.key(volume["id"])
        assert opens(file, key)
        if clear is not None:  # qemu knows LUKS1 alone
            assert clear(world.site.folder, file, key, len(content)) == content
        return volume

    def make(name: str, kind: str, **source: str) -> None:
        killed(world, part, point, lambda: api.create_volume(name, volume_type=kind, **source))

    def act(volume: dict[str, Any], **action: Any) -> None:
        body = {name.replace("__", "-"): value for name, value in action.items()}
        killed(world, part, point, lambda: api.post(f"/v3/volumes/{volume['id']}/action", body))

    make("first", secret, imageRef=image)
    first = holds("first")
    act(first, os__volume_upload_image={"image_name": "sealed"})
    sealed = one(api.get("/image/v2/images")["images"], "sealed")
    assert (sealed["status"], sealed["container_format"]) == ("active", "luks")
    make("second", secret, imageRef=sealed["id"])
    second = holds("second")
    act(second, os__retype={"new_type": other, "migration_policy": "on-demand"})
    holds("second")
    act(second, os__retype={"new_type": secret, "migration_policy": "on-demand"})
    second = holds("second")
    former = world.key(second["id"])
    killed(world, part, point, lambda: api.post(f"/brickyard/v1/volumes/{second['id']}/rekey", {}))
    second = holds("second")
    assert not opens(world.file(second["id"]), former)
    make("copy", secret, source_volid=second["id"])
    copy = holds("copy")
    assert not opens(world.file(copy["id"]), world.key(second["id"]))
    for volume, left in ((first, "second"), (second, "copy"), (copy, None)):
        killed(world, part, point, lambda volume=volume: api.delete(f"/v3/volumes/{volume['id']}"))  # type: ignore[misc]
        if left:
            holds(left)  # with a key that is its own
    for kept in (sealed["id"], image):
        api.delete(f"/image/v2/images/{kept}")
        api.settle()
    world.site.clean()
    assert api.volumes() == []
    assert api.get("/brickyard/v1/keys")["keys"] == []
