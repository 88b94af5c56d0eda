"""What is left in pools, as a message bus hears it: only what has changed, and the sums of back ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.results import Pool
from coordinator.server.capacity import Capacity
from coordinator.state import enrolment, fleet
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.schema import prepare
from coordinator.state.tables.columns import utcnow

GIB = 1 << 30


class Bus:
    """A listener on the other side."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    async def say(self, event_type: str, publisher: str, payload: dict[str, Any]) -> None:
        self.heard.append((event_type, payload))


def pool(name: str, total: int, free: int, *, thin: bool = True, ratio: float = 2.0) -> Pool:
    return Pool(backend="files", name=name, driver="file", total_bytes=total * GIB, free_bytes=free * GIB,
                allocated_bytes=0, thin=thin, max_over_subscription=ratio)  # fmt: skip


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database.sqlite(tmp_path / "db")
    made.write_now(prepare)
    host = EnrolledHost("host-a", "127.0.0.1", 1, 2, "0" * 64, utcnow())
    made.write_now(lambda conn: enrolment.put_host(conn, host))
    made.write_now(fleet.ensure_hosts)
    yield made
    await asyncio.to_thread(made.close)


async def test_changed_pools_and_the_sums_of_their_back_ends(db: Database) -> None:
    bus = Bus()
    capacity = Capacity(db, bus, lambda host: True, 60)
    pools = [pool("one", 100, 90), pool("two", 50, 20, thin=False)]
    await db.write(lambda conn: fleet.report(conn, "host-a", None, pools))
    await capacity.look()
    told = {(kind, body["name_to_id"]): body for kind, body in bus.heard}
    one = told["capacity.pool", "host-a@files#one"]
    assert (one["total"], one["free"], one["provisioned"], one["virtual_free"]) == (100, 90, 0, 200)
    assert told["capacity.pool", "host-a@files#two"]["virtual_free"] == 20
    whole = told["capacity.backend", "host-a@files"]
    assert (whole["total"], whole["free"], whole["virtual_free"]) == (150, 110, 220)
    bus.heard.clear()
    await capacity.look()
    assert bus.heard == []
    pools[0] = pool("one", 100, 80)
    await db.write(lambda conn: fleet.report(conn, "host-a", None, pools))
    await capacity.look()
    assert [(kind, body["name_to_id"]) for kind, body in bus.heard] == [
        ("capacity.pool", "host-a@files#one"),
        ("capacity.backend", "host-a@files"),
    ]


async def test_hosts_that_another_coordinator_watches_are_left_to_it(db: Database) -> None:
    bus = Bus()
    await db.write(lambda conn: fleet.report(conn, "host-a", None, [pool("one", 100, 90)]))
    await Capacity(db, bus, lambda host: False, 60).look()
    assert bus.heard == []
