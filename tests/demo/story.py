"""The story of the demo, told in order."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from demo.api import Api, Refused
from demo.place import DemoFailed, Place
from demo.prepare import Packed, Source, make_source, pack
from demo.report import Report
from demo.running import Site

MiB, GiB = 1 << 20, 1 << 30
LIMIT_S = 180


@dataclass(slots=True)
class Story:
    """What the steps share. `kept` are the volumes that exist now: id and size in GiB."""

    place: Place
    report: Report
    site: Site
    source: Source
    images: tuple[Packed, Packed]
    api: Api
    required: frozenset[str]
    kept: dict[str, int] = field(default_factory=dict)
    snapshots: dict[str, int] = field(default_factory=dict)
    secrets: list[bytes] = field(default_factory=list)

    def path(self, volume_id: str) -> Path:
        """The file of a volume on its host."""
        return self.site.volumes / "volumes" / volume_id

    def check_books(self) -> None:
        """Volumes, files and quota agree with what was made: no duplicate, no leftover, nothing counted twice."""
        listed = sorted(volume["id"] for volume in self.api.volumes())
        if listed != sorted(self.kept):
            raise DemoFailed(f"volumes are {listed}, should be {sorted(self.kept)}")
        store, files = self.site.images, self.site.volumes
        due: dict[Path, set[str]] = {
            files / "volumes": set(self.kept),
            files / "snapshots": set(self.snapshots),
            files / "partial": set(),
            store / "incoming": set(),
            self.site.folder / "host-b" / "state" / "spool": set(),
        }
        for folder, wanted in due.items():
            here = {entry.name for entry in folder.iterdir()}
            if here != wanted:
                raise DemoFailed(f"{folder} holds {sorted(here)}, should hold {sorted(wanted)}")
        gigabytes = sum(self.kept.values()) + sum(self.snapshots.values())
        count = {"volumes": len(self.kept), "gigabytes": gigabytes, "snapshots": len(self.snapshots)}
        if self.api.usage() != count:
            raise DemoFailed(f"quota counts {self.api.usage()}, should be {count}")


def tell(place: Place) -> int:
    """Returns the exit code."""
    report = Report()
    required = frozenset(os.environ.get("BRICKYARD_REQUIRE", "").replace(",", " ").split())
    try:
        _tell(place, report, required)
    except (DemoFailed, Refused) as failure:
        sys.stdout.flush()
        sys.stderr.write(f"\ndemo: FAILED: {failure}\n")
        return 1
    seconds = sum(step.seconds for step in report.steps)
    if os.environ.get("CI") and seconds > LIMIT_S:
        sys.stderr.write(f"demo: took {seconds:.0f} s; the limit is {LIMIT_S} s\n")
        return 1
    return 0


def _tell(place: Place, report: Report, required: frozenset[str]) -> None:
    from demo import steps_end, steps_kill, steps_make, steps_refuse, steps_use

    with report.step("Source, images, site") as step:
        report.note(place.build())
        if "loop" in required and not place.on_loop:
            raise DemoFailed("BRICKYARD_REQUIRE names loop, but the demo's file system could not be mounted")
        site = Site(place)
        source = make_source(place)
        report.proved(f"ext4 of 256 MiB with real files in memory, {source.count} canaries, one at least in each MiB")
        images = pack(place, source)
        report.proved(f"two encrypted qcow2 of it: {images[0].size // MiB} MiB each, for a passphrase and for a key")
        site.ready()
        api = Api(site.login, site.check)
        hosts = {host["id"]: host for host in api.get("/brickyard/v1/hosts")["hosts"]}
        if set(hosts) != {"host-a", "host-b"} or not all(host["reachable"] for host in hosts.values()):
            raise DemoFailed(f"hosts are {hosts}")
        report.proved("one coordinator, two agents enrolled by one-time tokens; host-a keeps images, host-b volumes")
        step.bytes = source.path.stat().st_size * 2
    story = Story(place, report, site, source, images, api, required)
    story.secrets = [text for image in images for text in {image.secret.passphrase, image.secret.value}]
    try:
        for tell_steps in (steps_make.tell, steps_use.tell, steps_refuse.tell, steps_kill.tell, steps_end.tell):
            tell_steps(story)
    except (DemoFailed, Refused):
        sys.stdout.flush()
        if site.log.exists():
            sys.stderr.write(f"\nThe last lines of the site:\n{site.tail(12)}\n")
        raise
    report.say("\n" + report.table())
