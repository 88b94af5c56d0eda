"""A sparse volume is copied: `benchmarks/copying.py [--quick]`.

4 GiB with a quarter of it allocated in runs of 4 MiB, from a cold source, in turns with Cinder's way (`dd bs=1M` with
direct I/O on both sides). Then: how exactly a rate limit holds, what a kill -9 in the middle costs, a copy inside one
file system that shares data (XFS on a loop device, where it can be made), and what a second worker brings: from disk
to disk, where one may keep the disk busy, and in memory where the copy is encrypted, which the processors bound.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _anew
import _common as common
import _disk as disk

GIB = 1 << 30
MIB = 1 << 20
LOST_MIB, PEAK_MIB = 64.0, 256.0


def engine(given: dict[str, Any]) -> dict[str, Any]:
    """In a child: one copy by the engine of the agent, as a clone is made; prints each checkpoint."""
    from agent.copying.engine import copy
    from agent.copying.model import Checkpoint, CopyOptions, Dest, Source, by_path

    size, moved = given["size"], 0

    async def save(done: int) -> None:
        print(f"checkpoint {done}", flush=True)

    async def work() -> None:
        nonlocal moved
        options = CopyOptions(rate_limit=given.get("rate"), workers=given.get("workers", 2), reflink=given["reflink"])
        dest = Dest(by_path(Path(given["to"])), size, zeros_skippable=True)
        done = await copy(Source(by_path(Path(given["source"])), size), dest, options, lambda progress: None,
                          Checkpoint(given.get("start", 0), save), asyncio.Event())  # fmt: skip
        moved = done.moved

    Path(given["to"]).touch()
    return disk.measured(lambda: asyncio.run(work())) | {"moved": moved}


class Copies:
    def __init__(self, folder: Path, size: int) -> None:
        self.size, self.source = size, folder / "source"
        self.theirs, self.ours = folder / "theirs", folder / "ours"
        disk.lay(self.source, size, 0.25)

    def by_dd(self) -> disk.Cost:
        disk.remove(self.theirs)
        disk.cold(self.source)
        return disk.tool(["dd", f"if={self.source}", f"of={self.theirs}", f"count={self.size // MIB}", "bs=1M",
                          "iflag=direct", "oflag=direct"])  # fmt: skip

    def by_agent(self, **given: Any) -> tuple[disk.Cost, int]:
        if not given.get("start"):
            disk.remove(self.ours)
        disk.cold(self.source)
        named = {"source": self.source, "to": self.ours, "size": self.size, "reflink": False}
        found = disk.child(__file__, "engine", **(named | given))
        moved = found.pop("moved")
        return disk.Cost(**found), moved

    def check(self) -> None:
        subprocess.run(["cmp", self.source, self.ours], check=True)

    def killed(self) -> float:
        """Kill a copy in its middle, resume it; MiB that were moved twice."""
        disk.remove(self.ours)
        disk.cold(self.source)
        given = {"source": self.source, "to": self.ours, "size": self.size, "reflink": False}
        argv = [sys.executable, __file__, "child", "engine", json.dumps(given, default=str)]
        start = 0
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("checkpoint"):
                    start = int(line.split()[1])
                    if start > self.size // 2:
                        break
            child.kill()
        before = _data(self.ours)
        _, moved = self.by_agent(start=start)
        self.check()
        return max(0, before + moved - _data(self.source)) / MIB


def _data(path: Path) -> int:
    return path.stat().st_blocks * 512


@contextmanager
def sharing(folder: Path) -> Iterator[Path | None]:
    """A small XFS on a loop device of its own; None where that can not be made."""
    image, place = folder / "xfs", folder / "mounted"
    place.mkdir()
    with image.open("wb") as out:
        out.truncate(8 * GIB)
    mounted = False
    if os.geteuid() == 0:
        made = subprocess.run(["mkfs.xfs", "-q", image], capture_output=True, check=False).returncode == 0
        mounted = made and not subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)


def shared(folder: Path, *, quick: bool) -> float | None:
    """Times faster than dd of the same file, by sharing its data."""
    with sharing(folder) as place:
        if place is None:
            return None
        copies = Copies(place, GIB // 2 if quick else 4 * GIB)
        theirs, ours = copies.by_dd(), copies.by_agent(reflink=True)[0]
        copies.check()
        return theirs.wall / ours.wall


def rate(copies: Copies, limit: int) -> float:
    """Bytes a second over the limit."""
    begun = time.monotonic()
    cost, moved = copies.by_agent(rate=limit)
    copies.check()
    assert time.monotonic() > begun
    return moved / cost.wall / limit


def measure(folder: Path, *, quick: bool) -> int:
    size, rounds = (GIB, 2) if quick else (4 * GIB, 5)
    copies = Copies(folder, size)
    theirs, ours, single = [], [], []
    for number in range(rounds):
        theirs.append(copies.by_dd())
        ours.append(copies.by_agent()[0])
        if number == 0:
            copies.check()
        single.append(copies.by_agent(workers=1)[0])
    disk.told("dd bs=1M, direct", theirs)
    disk.told("agent", ours)
    disk.told("agent, one worker", single)
    held = rate(copies, size // 4 // (2 if quick else 5))
    lost = copies.killed()
    disk.remove(copies.source, copies.ours, copies.theirs)
    print(f"rate limit: {held:.3f} of it; killed and resumed: {lost:.0f} MiB moved twice")
    wall, cpu = disk.ratio(theirs, ours, "wall"), disk.ratio(theirs, ours, "cpu")
    written = 1 / disk.ratio(theirs, ours, "written")
    peak = max(cost.peak_mib for cost in ours)
    figures = [
        (f"{wall:.1f}x wall", wall >= 1.9),
        (f"{cpu:.1f}x CPU", cpu >= 3.0),
        (f"{written:.2f} of the bytes", written <= 0.26),
        (f"rate {held:.2f}", 0.9 <= held <= 1.1),
        (f"{lost:.0f} MiB lost", lost <= LOST_MIB),
        (f"peak {peak:.0f} MiB", peak <= PEAK_MIB),
    ]
    print(f"two workers from disk to disk: {disk.ratio(single, ours, 'wall'):.2f}x of one")
    figures += _anew.two_workers(__file__, GIB // 2 if quick else GIB, rounds + 1)
    times, least = shared(folder, quick=quick), 30 if quick else 300
    if times is None:
        print("sharing was not measured: it needs root, mkfs.xfs and a loop device")
    else:
        figures.append((f"shared {times:.0f}x", times >= least))
    goal = (
        f">= 1.9x, >= 3x, <= 0.26, within 10 %, <= {LOST_MIB:.0f} MiB, <= {PEAK_MIB:.0f} MiB, "
        f">= {disk.SCALES}x (two cores free), >= {least}x"
    )
    return common.goals("copying", figures, goal)


def main() -> int:
    if sys.argv[1:2] == ["child"]:
        print(json.dumps({"engine": engine, "anew": _anew.anew}[sys.argv[2]](json.loads(sys.argv[3]))))
        return 0
    options = common.arguments(__doc__ or "")
    print(f"copying: {common.machine()}")
    with common.folder(options.dir) as folder:
        return measure(folder, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
