"""What calls of the API cost, and that a million volumes change nothing: `benchmarks/api.py [--quick] [--postgresql]`.

For each number of volumes in the database a fresh site of one coordinator and one agent, as their units run them. Per
call: requests a second from 8 connections, p50 and p99 of their time, CPU time of the coordinator for each (and how
many a second one core could do at that cost); then, but for creates, p99 at 80 % of that rate, sent by the clock
whether or not earlier ones were answered (from when each was due, over at most 32 connections). At the end the memory
of the coordinator. `--postgresql` measures 1,000 and 100,000 volumes on a PostgreSQL of its own too (durable commits),
with one coordinator and with two; CPU time is that of all coordinators, without the server's.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _calls as calls
import _common as common
from _seed import volume_id

CONNECTIONS, MOST = 8, 32
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB", "autovacuum": "on"}
SHOWS, LISTS, PAIRS, GROWTH, P99_S = 1500.0, 250.0, 100.0, 1.5, 0.1
PEER_CPU_MS = {"show": 11.0, "detail": 63.0, "attachment pair": 188.0}
FEWER = 15
Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Figures:
    """Of one kind of call at one number of volumes; times in seconds."""

    rate: float
    p50: float
    p99: float
    cpu: float
    p99_at_80: float

    @property
    def core(self) -> float:
        """How many a second one core does."""
        return 1 / self.cpu if self.cpu else float("inf")

    def __str__(self) -> str:
        return (
            f"{self.rate:7.0f}/s  p50 {self.p50 * 1e3:6.2f} ms  p99 {self.p99 * 1e3:6.2f} ms  CPU "
            f"{self.cpu * 1e3:6.2f} ms ({self.core:.0f}/s on one core)  p99 at 80 % {self.p99_at_80 * 1e3:6.2f} ms"
        )


class Work:
    """The calls that are measured, over volumes 1 to `count`."""

    def __init__(self, clients: list[calls.Client], count: int) -> None:
        self.client, self.count = clients[0], count
        self._clients = itertools.cycle(clients)
        self._free = itertools.cycle(number for number in range(1, min(count, 1000) + 1) if number % 10)
        self._random = random.Random(1)

    async def _expect(self, wanted: int, method: str, path: str, body: object = None) -> bytes:
        status, raw, _ = await next(self._clients).raw(method, f"/v3/{self.client.project}{path}", body)
        if status != wanted:
            raise RuntimeError(f"{method} {path}: {status} {raw[:300]!r}")
        return raw

    async def show(self) -> None:
        await self._expect(200, "GET", f"/volumes/{volume_id(self._random.randint(1, self.count))}")

    async def detail(self) -> None:
        """A page of 100 from anywhere in the list."""
        marker = volume_id(self._random.randint(101, self.count))
        await self._expect(200, "GET", f"/volumes/detail?limit=100&marker={marker}")

    async def create(self) -> None:
        await self._expect(202, "POST", "/volumes", {"volume": {"size": 1, "name": "bench"}})

    async def pair(self) -> None:
        """Reserve a volume and let it go."""
        wanted = {"volume_uuid": volume_id(next(self._free)), "instance_uuid": volume_id(1)}
        raw = await self._expect(200, "POST", "/attachments", {"attachment": wanted})
        made = raw.partition(b'"id":"')[2][:36].decode()
        await self._expect(200, "DELETE", f"/attachments/{made}")


async def closed(call: Call, seconds: float) -> list[float]:
    """Each of the connections asks again as soon as it is answered; how long each took."""
    took: list[float] = []
    end = time.monotonic() + seconds

    async def connection() -> None:
        while (begun := time.monotonic()) < end:
            await call()
            took.append(time.monotonic() - begun)

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return took


async def by_the_clock(call: Call, rate: float, seconds: float) -> list[float]:
    """Calls at a steady rate; how long each took from when it was due, with the wait for one of the connections."""
    took: list[float] = []
    pool = asyncio.Semaphore(MOST)  # without a limit each stall would be followed by the cost of new connections
    begun = time.monotonic()

    async def due(at: float) -> None:
        async with pool:
            await call()
        took.append(time.monotonic() - at)

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            at = begun + number / rate
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            group.create_task(due(at))
    return took


def percentile(took: list[float], percent: int) -> float:
    return quantiles(took, n=100)[percent - 1]


async def measured(site: common.Site, call: Call, seconds: float, *, at_80: bool = True) -> Figures:
    await closed(call, min(1.0, seconds))  # a service that has just started compiles its statements once
    pids = coordinators(site)
    cpu, begun = common.cpu_seconds(pids), time.monotonic()
    took = await closed(call, seconds)
    used, rate = common.cpu_seconds(pids) - cpu, len(took) / (time.monotonic() - begun)
    later = await by_the_clock(call, rate * 0.8, seconds) if at_80 else took
    return Figures(rate, percentile(took, 50), percentile(took, 99), used / len(took), percentile(later, 99))


def coordinators(site: common.Site) -> list[int]:
    """The processes of all coordinators."""
    return [pid for process in site.processes[: len(site.endpoints)] for pid in common.tree(process.pid)]


async def at(site: common.Site, count: int, seconds: float) -> dict[str, Figures]:
    """All figures with `count` volumes in the database."""
    clients = [calls.Client(endpoint) for endpoint in site.endpoints]
    await clients[0].login(site.password)
    for client in clients:
        client.token, client.project = clients[0].token, clients[0].project
    await clients[0].unlimited()
    await calls.can_create(clients[0])
    work = Work(clients, count)
    found = {
        "show": await measured(site, work.show, seconds),
        "detail": await measured(site, work.detail, seconds),
        "attachment pair": await measured(site, work.pair, seconds),
        "create": await measured(site, work.create, min(2.0, seconds), at_80=False),
    }
    for name, figures in found.items():
        print(f"{count:>9,} {name:16} {figures}")
    sizes = common.pss_mib(coordinators(site))
    print(f"{count:>9,} {'memory':16} {sum(sizes.values()):7.0f} MiB; yardstick {common.yardstick() * 1e3:.0f} ms")
    for client in clients:
        await client.close()
    return found


def on_postgresql(options: Namespace, seconds: float) -> None:
    """Print the figures of one and of two coordinators."""
    from tests.support.postgres import Cluster

    cluster = Cluster(DURABLE)
    try:
        for count, number in itertools.product((1_000, 100_000), (1, 2)):
            print(f"PostgreSQL, coordinators: {number}")
            database = cluster.database()
            with (
                common.folder(options.dir) as folder,
                common.units(folder, seeded=count, database=database, coordinators=number) as site,
            ):
                asyncio.run(at(site, count, seconds))
            cluster.drop(database)
    finally:
        cluster.close()


def main() -> int:
    options = common.arguments(__doc__ or "", postgresql="measure on PostgreSQL, too")
    seconds = 2.5 if options.quick else 10.0
    print(f"api: {common.machine()}")
    found = {}
    for count in (1_000, 100_000) if options.quick else (1_000, 100_000, 1_000_000):
        with common.folder(options.dir) as folder, common.units(folder, seeded=count) as site:
            found[count] = asyncio.run(at(site, count, seconds))
    if options.postgresql:
        on_postgresql(options, seconds)
    small, large = found[1_000], found[max(found)]
    growth = large["detail"].cpu / small["detail"].cpu
    dearest = max(small[name].cpu * 1e3 / peer for name, peer in PEER_CPU_MS.items())
    slowest = max(figures.p99_at_80 for of in (small, large) for name, figures in of.items() if name != "create")
    return common.goals(
        "api",
        [
            (f"{small['show'].core:.0f} shows/s", small["show"].core >= SHOWS),
            (f"{small['detail'].core:.0f} lists of 100/s", small["detail"].core >= LISTS),
            (f"{growth:.2f}x at {max(found):,}", growth <= GROWTH),
            (f"{small['attachment pair'].rate:.0f} attachment pairs/s", small["attachment pair"].rate >= PAIRS),
            (f"CPU 1/{1 / dearest:.0f} of Cinder's", dearest <= 1 / FEWER),
            (f"p99 {slowest * 1e3:.0f} ms at 80 %", slowest <= P99_S),
        ],
        f">= {SHOWS:.0f}/s and {LISTS:.0f}/s on one core, <= {GROWTH}x, >= {PAIRS:.0f}/s, <= 1/{FEWER}, "
        f"<= {P99_S * 1e3:.0f} ms",
    )


if __name__ == "__main__":
    sys.exit(main())
