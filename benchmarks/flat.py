"""What a million volumes change: `benchmarks/flat.py [--quick]`, CPU time of each read beside that of a small site.

Two sites of one coordinator each run at the same time, one with 1,000 volumes and one with 1,000,000 (`--quick`:
100,000), all of one project, and are asked in turns: what else the machine does meets both alike, so the ratio means
something on a busy machine, too.
"""

from __future__ import annotations

import asyncio
import random
import sys
from argparse import Namespace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _calls as calls
import _common as common
from _seed import volume_id
from api import coordinators

SMALL, LARGE, QUICK = 1_000, 1_000_000, 100_000
GROWTH = 1.5
ROUNDS, EACH = 15, 40
KINDS = ("show", "first page", "page", "page of a status", "limits", "quota", "count of a filter")


class Side:
    """One site, and how its calls are put."""

    def __init__(self, site: common.Site, count: int) -> None:
        self.site, self.count = site, count
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
        }[kind]

    async def cost(self, kind: str, calls_made: int) -> float:
        """CPU seconds of the coordinator for one call."""
        pids = coordinators(self.site)
        before = common.cpu_seconds(pids)
        for _ in range(calls_made):
            path = f"/v3/{self.client.project}{self.path(kind)}"
            status, raw, _headers = await self.client.raw("GET", path)
            if status != 200:
                raise RuntimeError(f"GET {path}: {status} {raw[:300]!r}")
        return (common.cpu_seconds(pids) - before) / calls_made


async def compared(small: Side, large: Side) -> dict[str, float]:
    """How much more each kind of call costs on the large site: the median of rounds."""
    for side in (small, large):
        await side.client.login(side.site.password)
        for kind in KINDS:
            await side.cost(kind, 5)  # statements are compiled once
    found = {}
    for kind in KINDS:
        rounds = [(await small.cost(kind, EACH), await large.cost(kind, EACH)) for _ in range(ROUNDS)]
        one, other = (median(side) for side in zip(*rounds, strict=True))
        found[kind] = other / one if one else float("inf")
        print(f"{kind:18} CPU {one * 1e3:6.2f} ms at {small.count:,}, {other * 1e3:6.2f} ms at {large.count:,}: "
              f"{found[kind]:.2f}x", flush=True)  # fmt: skip
    for side in (small, large):
        await side.client.close()
    return found


def main(options: Namespace) -> int:
    print(f"flat: {common.machine()}")
    count = QUICK if options.quick else LARGE
    with (
        common.folder(options.dir) as one,
        common.folder(options.dir) as other,
        common.units(one, seeded=SMALL) as small,
        common.units(other, seeded=count) as large,
    ):
        found = asyncio.run(compared(Side(small, SMALL), Side(large, count)))
    results = [(f"{kind} {growth:.2f}x", growth <= GROWTH) for kind, growth in found.items()]
    return common.goals("flat", results, f"<= {GROWTH}x at {count:,}")


if __name__ == "__main__":
    sys.exit(main(common.arguments(__doc__ or "")))
