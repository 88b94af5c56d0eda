"""Freeze half-done work of this release: `python tests/corpus/generate.py RELEASE`. A released corpus is never changed.

Each kind of operation is killed at each point at which its rows differ, and its rows are taken as they lie there;
then it goes on, and how it ended is noted beside them.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.corpus import half
from tests.integration.kill.kinds import KINDS
from tests.integration.kill.kinds.creating import creation, ready
from tests.integration.kill.kinds.world import Ctx, Kind, World, a_volume, available, named
from tests.support.api import AWAY, Refused

AFTER_COMMIT = {"coordinator.step.begin", "coordinator.job.before-post", "coordinator.job.result-in-hand",
                "coordinator.step.committed", "coordinator.undo.begin", "coordinator.undo.before-post"}  # fmt: skip
IN_JOB = {"agent.job.journaled", "agent.job.started", "agent.job.effect-done", "agent.job.finished",
          "agent.job.cancel-journaled", "agent.job.abandoned", "agent.attachment.decided",
          "agent.attachment.attached", "agent.attachment.detached"}  # fmt: skip


def _image(world: World) -> str:
    return str(world.once("clear image", lambda: world.site.api.image("clear", "raw", b"x" * (1 << 16))))


def _lost_image(world: World) -> Ctx:
    """An image whose bytes are gone from the store: making a volume of it fails."""
    image = world.site.api.image("lost", "raw", b"x" * (1 << 16))
    (half.places(world.site)["images"] / image).unlink()
    world.encrypted_type()
    return named(world) | {"image": image}


def _from_lost(world: World, ctx: Ctx) -> None:
    with suppress(*AWAY):
        world.site.api.create_volume(ctx["name"], imageRef=ctx["image"])


def _gave_up(world: World, ctx: Ctx) -> None:
    volume = next(one for one in world.site.api.volumes() if one["name"] == ctx["name"])
    assert volume["status"] == "error", volume
    world.site.api.delete(f"/image/v2/images/{ctx['image']}")


def _clone(world: World, ctx: Ctx) -> None:
    with suppress(*AWAY):
        world.site.api.create_volume(ctx["name"], source_volid=ctx["volume"])


SECRET = World.encrypted_type
OWN = {
    "from-image": Kind("from-image", ready(SECRET, _image), creation(volume_type=SECRET, imageRef=_image),
                       available),
    "refused": Kind("refused", _lost_image, _from_lost, _gave_up),
    "clone": Kind("clone", lambda world: a_volume(world) | named(world), _clone, available),
}  # fmt: skip


def points_of(world: World, kind: Kind, part: str, wanted: set[str]) -> list[str]:
    ctx = kind.prepare(world)
    world.site.clean() if kind.name != "refused" else world.site.api.settle()
    site = world.site
    record = site.records / f"{kind.name}-{part}"
    record.touch()
    record.chmod(0o666)
    site.parts[part].arm(None, record)
    with suppress(Refused):
        kind.act(world, ctx)
    site.api.settle(60)
    site.parts[part].arm(None)
    kind.ended(world, ctx)
    site.api.settle()
    passed = [point for point in record.read_text().split() if point in wanted]
    return [f"{point}@{passed[: index + 1].count(point)}" for index, point in enumerate(passed)]


def frozen(world: World, kind: Kind, part: str, point: str) -> dict[str, Any] | None:
    site = world.site
    ctx = kind.prepare(world)
    site.api.settle()
    site.parts[part].arm(point)
    with ThreadPoolExecutor(1) as user:
        asked = user.submit(lambda: _quietly(kind, world, ctx))
        site.parts[part].died(60)
        for each in site.parts.values():
            each.kill()
        case = half.taken(site)
        for each in site.parts.values():
            site.restart(each.name)
        site.coordinator.heard("up")
        asked.result(60)
    site.api.settle(60)
    if case is None:
        kind.ended(world, ctx)
        return None
    operation = case["coordinator"]["operations"][0]["id"]
    ends = site.truths.rows("SELECT state FROM operations WHERE id = ?", operation)[0]["state"]
    kind.ended(world, ctx)
    site.api.settle()
    return case | {"ends": ends}


def _quietly(kind: Kind, world: World, ctx: Ctx) -> None:
    with suppress(Refused, *AWAY):
        kind.act(world, ctx)


def main(release: str) -> None:
    site = half.new_site()
    world = World(site)
    try:
        site.start()
        for name, kind in {**KINDS, **OWN}.items():
            cases = {}
            for part, wanted in (("coordinator", AFTER_COMMIT), (site.volume_host, IN_JOB)):
                for point in points_of(world, kind, part, wanted):
                    case = frozen(world, kind, part, point)
                    if case is not None:
                        cases[point] = case
            half.saved(release, name, cases)
            print(name, len(cases), flush=True)
    finally:
        site.close()


if __name__ == "__main__":
    main(sys.argv[1])
