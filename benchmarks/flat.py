"""What a million volumes change: `benchmarks/flat.py [--quick] [--postgresql]`, the cost of each read beside that of a
small site.

Two sites of one coordinator each run at the same time, one with 1,000 volumes and one with 1,000,000 (`--quick`:
100,000), all of one project, and are asked in turns: what else the machine does meets both alike, so the ratio means
something on a busy machine, too. The cost is the coordinator's CPU time; with `--postgresql`, where the server does the
work, how long an answer takes. What looks at every row by its nature (the summary; on PostgreSQL, where no sums are
kept, what a project uses) is told and has no goal.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _calls as calls
import _common as common
from _seed import volume_id
from api import DURABLE, coordinators

SMALL, LARGE, QUICK = 1_000, 1_000_000, 100_000
GROWTH = 1.5
ROUNDS, EACH, FEW = 15, 40, 2
_CPU_OF_ALL = 2
"""What clock_getcpuclockid(3) puts below a process: the time of all its threads, to the nanosecond."""
KINDS = ("show", "first page", "page", "page of a status", "limits", "quota", "count of a filter", "summary")
EVERY_ROW = {"sqlite": {"summary"}, "postgresql": {"summary", "limits", "quota"}}


def _cpu(pid: int) -> float:
    """Seconds; none of a process that has just ended."""
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | _CPU_OF_ALL)
    return 0.0


class Side:
    """One site, and how its calls are put."""

    def __init__(self, site: common.Site, count: int, database: str) -> None:
        self.site, self.count, self.database = site, count, database
        self.client = calls.Client(site.endpoint)
        self._random = random.Random(1)

    def path(self, kind: str) -> str:
        one = volume_id(self._random.randint(101, self.count))
        number = self._random.randint(101, self.count)
        return {
            "show": f"/volumes/{one}",
            "first page": "/volumes/detail?limit=100",
            "page": f"/volumes/detail?limit=100&marker={one}",
            "page of a status": f"/volumes/detail?limit=100&status=available&marker={one}",
            "limits": "/limits",
            "quota": f"/os-quota-sets/{self.client.project}?usage=true",
            "count of a filter": f"/volumes?name=volume-{number}&with_count=true",
            "summary": "/volumes/summary",
        }[kind]

    async def cost(self, kind: str, calls_made: int) -> float:
        """Seconds for one call."""
        before = self._clock()
        for _ in range(calls_made):
            path = f"/v3/{self.client.project}{self.path(kind)}"
            status, raw, _headers = await self.client.raw("GET", path)
            if status != 200:
                raise RuntimeError(f"GET {path}: {status} {raw[:300]!r}")
        return (self._clock() - before) / calls_made

    def _clock(self) -> float:
        """Not the ticks of /proc: one of them is a quarter of a millisecond for each of forty calls."""
        if self.database == "sqlite":
            return sum(map(_cpu, coordinators(self.site)))
        return time.monotonic()


async def compared(small: Side, large: Side, rounds: int, each: int) -> dict[str, float]:
    """How much more each kind of call costs on the large site: the median of rounds."""
    for side in (small, large):
        await side.client.login(side.site.password)
        for kind in KINDS:
            await side.cost(kind, FEW)  # statements are compiled once
    found = {}
    for kind in KINDS:
        many, calls_made = (FEW, FEW) if kind in EVERY_ROW[small.database] else (rounds, each)
        costs = [(await small.cost(kind, calls_made), await large.cost(kind, calls_made)) for _ in range(many)]
        one, other = (median(side) for side in zip(*costs, strict=True))
        found[kind] = other / one if one else float("inf")
        print(f"{kind:18} {one * 1e3:6.2f} ms at {small.count:,}, {other * 1e3:6.2f} ms at {large.count:,}: "
              f"{found[kind]:.2f}x", flush=True)  # fmt: skip
    for side in (small, large):
        await side.client.close()
    return found


@contextmanager
def urls(name: str) -> Iterator[tuple[str | None, str | None]]:
    """Of two empty databases on a server of their own; None where SQLite's files are made with the site."""
    if name == "sqlite":
        yield None, None
        return
    from tests.support.postgres import Cluster

    cluster = Cluster(DURABLE)
    try:
        yield cluster.database(), cluster.database()
    finally:
        cluster.close()


def main(options: Namespace) -> int:
    print(f"flat: {common.machine()}")
    count, rounds, each = (QUICK, 5, 20) if options.quick else (LARGE, ROUNDS, EACH)
    database = "postgresql" if options.postgresql else "sqlite"
    with ExitStack() as stack:
        sides = []
        for url, rows in zip(stack.enter_context(urls(database)), (SMALL, count), strict=True):
            folder = stack.enter_context(common.folder(options.dir))
            begun = time.monotonic()
            site = stack.enter_context(common.units(folder, seeded=rows, database=url))
            print(f"{rows:,} volumes made and started in {time.monotonic() - begun:.0f} s", flush=True)
            sides.append(Side(site, rows, database))
        found = asyncio.run(compared(*sides, rounds, each))
    told = [(f"{kind} {growth:.2f}x", growth <= GROWTH) for kind, growth in found.items()
            if kind not in EVERY_ROW[database]]  # fmt: skip
    return common.goals("flat", told, f"<= {GROWTH}x at {count:,}")


if __name__ == "__main__":
    sys.exit(main(common.arguments(__doc__ or "", postgresql="measure on PostgreSQL instead")))
