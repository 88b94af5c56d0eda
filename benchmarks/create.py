"""How fast volumes are made, and what one costs: `benchmarks/create.py [--quick]`.

One coordinator and one agent as their units run them. First one volume at a time, from POST to available as its
creator sees it; then a burst from 16 callers: how fast calls are accepted, how fast their volumes become available,
and the CPU time of all processes of the site for each volume until then. Each volume is checked and deleted.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parent))

import _calls as calls
import _common as common

CALLERS = 16
ACCEPTED, P50_S, COMPLETED, CPU_MS = 300.0, 0.03, 100.0, 20.0


async def one_at_a_time(site: common.Site, client: calls.Client, count: int) -> list[float]:
    """Seconds from POST to available of each volume."""
    ids, took = [], []
    for _ in range(count):
        begun = time.monotonic()
        ids.append(await calls.create(client))
        await calls.available(client, ids[-1])
        took.append(time.monotonic() - begun)
    await calls.checked_and_deleted(site, client, ids)
    return took


async def burst(site: common.Site, client: calls.Client, count: int) -> tuple[float, float, float]:
    """Accepted a second, completed a second, CPU seconds for each."""
    ids: list[str] = []
    left = iter(range(count))

    async def caller() -> None:
        ids.extend([await calls.create(client) for _ in left])

    pids = site.pids
    cpu, begun = common.cpu_seconds(pids), time.monotonic()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    accepted = time.monotonic() - begun
    await calls.none_in(client, "creating")
    completed = time.monotonic() - begun
    used = common.cpu_seconds(site.pids) - cpu
    await calls.checked_and_deleted(site, client, ids)
    return count / accepted, count / completed, used / count


async def measure(site: common.Site, *, quick: bool) -> int:
    client = calls.Client(site.endpoint)
    await client.login(site.password)
    await client.unlimited()
    await calls.can_create(client)
    await burst(site, client, 2 * CALLERS)  # a service that has just started compiles its statements once
    took = await one_at_a_time(site, client, 50 if quick else 200)
    slowest = quantiles(took, n=20)[-1]
    print(f"one at a time: p50 {median(took) * 1e3:.1f} ms, p95 {slowest * 1e3:.1f} ms, {len(took)} volumes")
    rounds = []
    for number in range(2 if quick else 5):
        rounds.append(await burst(site, client, 300 if quick else 600))
        accepted, completed, used = rounds[-1]
        print(
            f"burst {number + 1}, {CALLERS} callers: {accepted:.0f} accepted/s, {completed:.0f} completed/s, "
            f"{used * 1e3:.1f} ms of CPU a volume"
        )
    await client.close()
    accepted, completed, used = (median(values) for values in zip(*rounds, strict=True))
    return common.goals(
        "create",
        [
            (f"{accepted:.0f} accepted/s", accepted >= ACCEPTED),
            (f"p50 {median(took):.3f} s", median(took) <= P50_S),
            (f"{completed:.0f} completed/s", completed >= COMPLETED),
            (f"{used * 1e3:.1f} ms CPU/volume", used * 1e3 <= CPU_MS),
        ],
        f">= {ACCEPTED:.0f}/s, <= {P50_S} s, >= {COMPLETED:.0f}/s, <= {CPU_MS:.0f} ms",
    )


def main() -> int:
    options = common.arguments(__doc__ or "")
    print(f"create: {common.machine()}")
    with common.folder(options.dir) as folder, common.units(folder) as site:
        return asyncio.run(measure(site, quick=options.quick))


if __name__ == "__main__":
    sys.exit(main())
