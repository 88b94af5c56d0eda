"""How many volumes a project at its limit gets when everybody asks at once: `benchmarks/quota.py [--quick] [--kept]`.

A PostgreSQL of its own with durable commits, two coordinators' databases, 64 creators in one project whose limit is a
part of what they ask for together. Each call is the whole accepting transaction (policy aside): quota, volume,
operation, event. Exactly the limit must be accepted, everything else refused as over the limit, nothing else raised.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _common as common

from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.quota import guard, limits
from coordinator.quota.errors import OverQuota
from coordinator.quota.settings import QuotaSettings
from coordinator.quota.usage import used
from coordinator.state.database import Database
from coordinator.state.schema import prepare
from coordinator.state.usage import RULES, differences
from tests.support.postgres import Cluster

CREATORS, GOAL = 64, 300.0
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB", "autovacuum": "on"}


async def creators(databases: list[Database], limit: int) -> tuple[float, int, int, list[BaseException]]:
    """Seconds until the limit was reached, accepted, refused, and whatever else was raised."""
    keys = KeyStore(Kek.generate())
    accepted = refused = 0
    others: list[BaseException] = []
    reached = 0.0
    wanted = NewVolume(size=1, name="bench")
    left = iter(range(limit + limit // 4))
    begun = time.monotonic()

    async def creator(number: int) -> None:
        nonlocal accepted, refused, reached
        db = databases[number % len(databases)]
        requester = Requester("p", "u", "req-bench", f"c{number % len(databases)}")
        for _ in left:
            try:
                await db.write(lambda conn: accept_volume(conn, requester, keys, wanted), together=wanted.company("p"))
            except OverQuota:
                refused += 1
            except Exception as error:  # noqa: BLE001 - counted, and shown
                others.append(error)
            else:
                accepted += 1
                reached = time.monotonic() - begun

    await asyncio.gather(*(creator(number) for number in range(CREATORS)))
    return reached, accepted, refused, others


def main() -> int:
    asked = common.arguments(__doc__ or "", kept='sums are kept (quota.driver = "stored")')
    limit = 500 if asked.quick else 3000
    print(common.machine())
    cluster = Cluster(DURABLE)
    try:
        url = cluster.database()
        databases = [Database.postgresql(url, writers=8) for _ in range(2)]
        databases[0].write_now(prepare)
        driver = QuotaSettings(driver="stored" if asked.kept else None)
        rules = guard.rules_of(databases[0].write_now(lambda conn: guard.check(conn, driver)))
        for db in databases:
            db.engine.update_execution_options(**{RULES: rules})
        databases[0].write_now(lambda conn: limits.put(conn, "p", {"volumes": limit, "gigabytes": -1}))
        seconds, accepted, refused, others = asyncio.run(creators(databases, limit))
        usage = databases[0].read_now(lambda conn: used(conn, "p"))["volumes"]
        wrong = databases[0].write_now(differences) if rules.kept else []
        for db in databases:
            db.close()
    finally:
        cluster.close()
    for error in others[:5]:
        print(f"raised: {type(error).__name__}: {error}")
    rate = accepted / seconds
    print(f"{CREATORS} creators at two coordinators: {accepted} accepted, {refused} refused, usage {usage}")
    figures = [
        (
            f"{accepted} of {limit} accepted, {len(others)} other errors",
            accepted == limit == usage and not [*others, *wrong],
        ),
        (f"{rate:.0f} creates/s", rate >= GOAL),
    ]
    return common.goals("quota", figures, f"exact, >= {GOAL:.0f}/s")


if __name__ == "__main__":
    sys.exit(main())
