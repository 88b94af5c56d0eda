"""How fast a volume is placed among ten thousand pools: `benchmarks/scheduler.py [--quick]`.

Ten thousand pools of five hundred hosts with realistic capabilities, volume types that ask for some of them, and sizes
from 1 to 100 GiB. Ours places each request with its claim, in a database in memory, on one core. The peer is Cinder's
own FilterScheduler with its default filters and weighers, from its package (installed into an environment of its own
at the first run), over the same pools and requests. What is placed is checked: no pool may hold more than it allows.

Then through the API: two coordinators on a PostgreSQL with durable commits and as many pools on five hundred hosts that
another process answers for (`_hosts.py`); 64 callers create volumes at both. Timed is until the last one has its pool.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import _common as common
import psycopg
from _fleet import POSTGRESQL, Pair, Simulator
from sqlalchemy import create_engine, insert, select

from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.request import Request
from coordinator.state.tables import metadata
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts, pools
from tests.support.postgres import Cluster

POOLS, HOSTS = 10_000, 500
PLACED, TIMES, BY_API = 2000.0, 20.0, 300.0
CALLERS = 64
PEER = Path(__file__).with_name("_cinder_scheduler.py")


def made_pools(dice: random.Random) -> list[dict[str, Any]]:
    """Plain figures from which both sides build their pools; sizes in GiB."""
    return [
        {
            "host": f"host{number % HOSTS:03d}",
            "pool": f"pool{number // HOSTS:02d}",
            "total": (total := dice.choice((2000, 8000, 32000))),
            "free": dice.randrange(total // 4, total),
            "media": dice.choice(("ssd", "nvme", "hdd")),
            "tier": dice.randrange(1, 6),
            "zone": f"az{number % 3}",
        }
        for number in range(POOLS)
    ]


def made_requests(dice: random.Random, count: int) -> list[dict[str, Any]]:
    asks: tuple[dict[str, str], ...] = (
        {}, {"media": "ssd"}, {"media": "<or> ssd <or> nvme"}, {"capabilities:tier": ">= 3"},
        {"media": "nvme", "tier": "<= 2"}, {"thin_provisioning_support": "<is> True"},
    )  # fmt: skip
    return [
        {"size": dice.randrange(1, 101), "specs": dice.choice(asks), "zone": dice.choice(("az0", "az1", "az2", None))}
        for _ in range(count)
    ]


def ours(described: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> float:
    """Placements a second, claims included; raises when a pool was promised beyond its limit."""
    engine = create_engine("sqlite://", connect_args={"isolation_level": None})
    with engine.connect() as conn:
        metadata.create_all(conn, tables=[hosts, pools])
        names = sorted({(pool["host"], pool["zone"]) for pool in described})
        for zone in {pool["zone"] for pool in described}:
            conn.execute(
                insert(hosts),
                [
                    {"id": f"{host}-{zone}", "reachable": True, "availability_zone": zone}
                    for host, its in names
                    if its == zone
                ],
            )
        conn.execute(insert(pools), [_row(pool) for pool in described])
        scheduler = Scheduler()
        asked = [
            Request(one["size"] * common.GIB, availability_zone=one["zone"], extra_specs=one["specs"]) for one in wanted
        ]
        begun = time.process_time()
        for request in asked:
            conn.exec_driver_sql("BEGIN")
            scheduler.place(conn, request)
            conn.exec_driver_sql("COMMIT")
        took = time.process_time() - begun
        rows = conn.execute(select(pools)).all()
        over = [row.id for row in rows if row.provisioned_bytes > row.total_bytes * row.max_over_subscription]
        placed = sum(row.provisioned_bytes for row in rows) - sum(_row(pool)["provisioned_bytes"] for pool in described)
    if over or placed != sum(request.device_bytes for request in asked):
        raise SystemExit(f"scheduler: wrong placements: {over[:3]} over-committed, {placed} bytes claimed")
    return len(asked) / took


def _row(pool: dict[str, Any]) -> dict[str, Any]:
    host = f"{pool['host']}-{pool['zone']}"
    return {
        "id": f"{host}@b#{pool['pool']}", "host_id": host, "backend": "b", "name": pool["pool"], "driver": "lvm",
        "total_bytes": pool["total"] * common.GIB, "free_bytes": pool["free"] * common.GIB,
        "provisioned_bytes": (pool["total"] - pool["free"]) * common.GIB, "max_over_subscription": 20.0, "thin": True,
        "reported": {"capabilities": {"media": pool["media"], "tier": pool["tier"]}}, "updated_at": utcnow(),
    }  # fmt: skip


def peer(described: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> float | None:
    """Placements a second of Cinder's scheduler; None where its package can not be installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "brickyard" / "cinder"
    python = cache / "bin" / "python"
    if not python.exists():
        print(f"installing Cinder into {cache} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", cache], check=True)
        done = subprocess.run([cache / "bin" / "pip", "install", "--quiet", "cinder>=29"], check=False)
        if done.returncode:
            return None
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"pools": described, "requests": wanted}, file)
        file.flush()
        done_peer = subprocess.run([python, PEER, file.name], capture_output=True, text=True, check=False)
    if done_peer.returncode:
        print(done_peer.stderr[-2000:])
        return None
    return float(done_peer.stdout.splitlines()[-1])


def by_api(count: int) -> float:
    """Placements a second through the API of two coordinators; raises when a pool was promised beyond its limit."""
    cluster, fleet = Cluster(POSTGRESQL), None
    try:
        with common.folder(None) as at:
            (port,) = common.free_ports(1)
            url = cluster.database()
            pair = Pair(at, url, 30.0)
            with pair.start():
                pass
            pair.enrol(HOSTS, port)
            fleet = Simulator(at / "hosts", HOSTS, port, 30.0)
            with pair.start() as site, closing(psycopg.connect(url, autocommit=True)) as db:
                _until(db, f"SELECT count(*) >= {POOLS} FROM pools JOIN hosts h ON h.id = host_id AND reachable")
                assert cluster.process is not None
                return asyncio.run(_created(pair, db, count, Parts(site, cluster.process.pid, fleet.process.pid)))
    finally:
        if fleet is not None:
            fleet.close()
        cluster.close()


class Parts:
    """Whose CPU time is whose: a busy machine says less by rates than by what each volume costs."""

    def __init__(self, site: common.Site, database: int, hosts: int) -> None:
        self._site, self._database, self._hosts = site, database, hosts
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        pids = {"coordinators": self._site.pids, "PostgreSQL": common.tree(self._database), "hosts": [self._hosts]}
        return {name: common.cpu_seconds(found) for name, found in {**pids, "callers": [os.getpid()]}.items()}

    def begin(self) -> None:
        self._before = self._now()

    def told(self, count: int) -> str:
        each = {name: (now - self._before[name]) * 1e3 / count for name, now in self._now().items()}
        shares = ", ".join(f"{name} {spent:.1f}" for name, spent in each.items())
        return f"{sum(each.values()):.1f} ms of CPU for each volume ({shares})"


async def _created(pair: Pair, db: psycopg.Connection[Any], count: int, parts: Parts) -> float:
    clients = pair.clients()
    for client in clients:
        await client.login(pair.password())
    await clients[0].unlimited()
    sizes, left = random.Random(2), iter(range(count))
    # The first of each reads all pools.
    for client in clients:
        await client.call("POST", "/volumes", {"volume": {"size": 1}})
    _until(db, "SELECT count(*) = 2 FROM volumes WHERE status = 'available'")
    parts.begin()
    begun = time.monotonic()

    async def caller(number: int) -> None:
        client = clients[number % 2]
        for _ in left:
            await client.call("POST", "/volumes", {"volume": {"size": sizes.randrange(1, 101)}})

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    accepted = time.monotonic() - begun
    _until(db, f"SELECT count(*) = {count + 2} FROM volumes WHERE pool_id IS NOT NULL")
    placed = time.monotonic() - begun
    _until(db, f"SELECT count(*) = {count + 2} FROM volumes WHERE status = 'available'")
    made = time.monotonic() - begun
    print(f"by API: {count / accepted:.0f} accepted/s, {count / placed:.0f} placed/s, {count / made:.0f} available/s")
    print(f"by API: {parts.told(count)}")
    over = db.execute("SELECT count(*) FROM pools WHERE provisioned_bytes > total_bytes * max_over_subscription")
    sums = db.execute(
        "SELECT (SELECT sum(provisioned_bytes) FROM pools) = (SELECT sum(device_bytes) FROM volumes),"
        " (SELECT count(DISTINCT pool_id) FROM volumes)"
    ).fetchone()
    if over.fetchone() != (0,) or sums is None or not sums[0]:
        raise SystemExit("scheduler: wrong placements through the API")
    print(f"by API: in {sums[1]} pools, none over-committed, promises equal the sum of the volumes")
    for client in clients:
        await client.close()
    return count / placed


def _until(db: psycopg.Connection[Any], query: str) -> None:
    deadline = time.monotonic() + 300
    while db.execute(query).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within 300 s: {query}")
        time.sleep(0.05)


def main() -> int:
    options = common.arguments(__doc__ or "")
    print(common.machine())
    dice = random.Random(1)
    described = made_pools(dice)
    wanted = made_requests(dice, 5000 if options.quick else 20000)
    rates, others = [], []
    for _ in range(2 if options.quick else 3):
        rates.append(ours(described, wanted))
        other = peer(described, wanted[: 5 if options.quick else 20])
        print(f"ours {rates[-1]:.0f} placements/s, Cinder's {'not to be had' if other is None else f'{other:.2f}'}")
        others += [] if other is None else [other]
    mine = sorted(rates)[len(rates) // 2]
    times = mine / max(others) if others else 0.0
    rate = by_api(500 if options.quick else 3000)
    figures = [(f"{mine:.0f} placements/s", mine >= PLACED), (f"{times:.0f}x Cinder's FilterScheduler", times >= TIMES),
               (f"{rate:.0f}/s through the API of two coordinators", rate >= BY_API)]  # fmt: skip
    return common.goals(
        "scheduler", figures, f">= {PLACED:.0f}/s on one core, >= {TIMES:.0f}x, >= {BY_API:.0f}/s by API"
    )


if __name__ == "__main__":
    sys.exit(main())
