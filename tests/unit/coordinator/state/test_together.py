"""Calls of one company on PostgreSQL: they share transactions, and each has what it would have had alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text, update

from agent.base.ids import new_id
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester
from coordinator.operations.advance import advance
from coordinator.operations.create_volume import workflow
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.quota import limits
from coordinator.quota.errors import GigabytesLimit, VolumeLimit
from coordinator.scheduler.placement import Scheduler
from coordinator.state import hierarchy, operations, usage, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.events import events
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.tables.operations import operations as operation_rows
from coordinator.state.tables.volumes import volumes as volume_rows
from coordinator.state.together import later, note, once
from coordinator.state.transition import enter
from tests.support import databases

pytestmark = pytest.mark.only("postgresql")
KEYS = KeyStore(Kek(b"k" * 32))
GIB = 1 << 30
Pair = databases.Pair


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with databases.two(tmp_path / "db") as made:
        yield made


def accepting(number: int, **more: Any) -> Any:
    requester = Requester("p", "u", f"req-{number}", f"c{number % 2}")
    return lambda conn: accept_volume(conn, requester, KEYS, NewVolume(size=1, **more))


def _transaction(conn: Connection) -> int:
    return int(conn.execute(text("SELECT pg_current_xact_id()::text::bigint")).scalar_one())


def _count(table: Any) -> Any:
    return lambda conn: conn.execute(select(func.count()).select_from(table)).scalar_one()


async def test_those_that_wait_share_a_transaction_and_others_have_their_own(pair: Pair) -> None:
    shared = await asyncio.gather(*(pair[0].write(_transaction, together="us") for _ in range(100)))
    assert len(set(shared)) <= 20
    mixed = await asyncio.gather(*(pair[0].write(_transaction, together=f"n{n}") for n in range(30)))
    alone = await asyncio.gather(*(pair[0].write(_transaction) for _ in range(30)))
    assert len(set(mixed)) == len(set(alone)) == 30


async def test_what_is_read_once_and_written_later_goes_with_the_call_that_is_undone(pair: Pair) -> None:
    def write(number: int) -> Any:
        def fn(conn: Connection) -> int:
            first = once(conn, ("first",), lambda: number)
            note(conn, ("last",), number)
            later(conn, _enter, {"id": f"h{number}", "reachable": True})
            if number % 4 == 3:
                raise KeyError(number)
            return int(first)

        return fn

    def _enter(conn: Connection, rows: list[dict[str, Any]]) -> None:
        conn.execute(insert(hosts), rows)

    asked = [pair[0].write(write(n), together="us") for n in range(60)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in outcomes[3::4]] == [KeyError] * 15
    for number, first in enumerate(outcomes):
        assert isinstance(first, BaseException) or (first <= number and first % 4 != 3)
    entered = await pair[0].read(lambda conn: set(conn.execute(select(hosts.c.id)).scalars()))
    assert entered == {f"h{n}" for n in range(60) if n % 4 != 3}


class _Ended(BaseException):
    """What ends a thread that does not reckon with it."""


async def test_whatever_one_raises_its_company_is_served(pair: Pair) -> None:
    def raises(conn: Connection) -> None:
        raise _Ended

    async with asyncio.timeout(60):
        asked = [pair[0].write(fn, together="us") for fn in (_transaction, raises, _transaction)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in outcomes] == [int, _Ended, int]
        assert await pair[0].write(_transaction, together="us")


async def test_one_that_waits_for_a_row_does_not_keep_its_company(pair: Pair) -> None:
    held, go = threading.Event(), threading.Event()

    def hold(conn: Connection) -> None:
        conn.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        conn.execute(update(hosts).where(hosts.c.id == "b").values(reachable=False))
        held.set()
        assert go.wait(60)

    def change(name: str) -> Any:
        return lambda conn: conn.execute(update(hosts).where(hosts.c.id == name).values(enabled=False)).rowcount

    names = [chr(ord("a") + n) for n in range(12)]
    await pair[0].write(lambda conn: conn.execute(insert(hosts), [{"id": name, "reachable": True} for name in names]))
    holder = asyncio.create_task(pair[1].write(hold))
    await asyncio.to_thread(held.wait, 60)
    tasks = {name: asyncio.create_task(pair[0].write(change(name), together="us")) for name in names}
    first = asyncio.create_task(pair[0].write(change("b"), together="they"))
    behind = asyncio.create_task(pair[0].write(change("a"), together="they"))
    waits = tasks.pop("b")
    assert await asyncio.gather(*tasks.values()) == [1] * 11
    assert await behind == 1
    assert not waits.done()
    assert not first.done()
    go.set()
    assert await waits == await first == 1
    await holder


@pytest.mark.parametrize("kept", [False, True])
async def test_exactly_the_limit_is_accepted_each_with_its_operation_and_event(pair: Pair, kept: bool) -> None:
    if kept:
        options = {usage.RULES: usage.Rules(kept=True)}
        for db in pair:
            db.engine = db.engine.execution_options(**options)
    await pair[0].write(lambda conn: limits.put(conn, "p", {"volumes": 50}))
    wanted = NewVolume(size=1)
    asked = [
        pair[n % 2].write(accepting(n, metadata={"n": str(n)}), together=wanted.company("p")) for n in range(80)
    ]  # fmt: skip
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    made = {outcome[1].id: str(number) for number, outcome in enumerate(outcomes) if isinstance(outcome, tuple)}
    assert len(made) == 50
    assert sum(isinstance(outcome, VolumeLimit) for outcome in outcomes) == 30
    for table in (volume_rows, operation_rows, events):
        assert await pair[0].read(_count(table)) == 50
    told = await pair[0].read(lambda conn: list(conn.execute(select(events.c.payload)).scalars()))
    assert {each["volume"]["id"]: each["volume"]["metadata"]["n"] for each in told} == made
    assert await pair[0].write(usage.differences) == [] or not kept


async def test_what_a_company_has_counted_is_counted_again_once_a_project_above_is_held(pair: Pair) -> None:
    """Who spends only what is limited above holds only that one, and may have spent in between."""
    for db in pair:
        db.engine = db.engine.execution_options(**{usage.RULES: usage.Rules(nested=True)})

    def tree(conn: Connection) -> None:
        hierarchy.learn(conn, "p", ["above"])
        limits.put(conn, "above", {"volumes": 20, "gigabytes": 10})
        limits.put(conn, "p", {"volumes": 10, "gigabytes": -1})

    def volume(conn: Connection, size: int) -> None:
        enter(conn, "volume", "create", id=new_id(), project_id="p", user_id="u", size=size)

    def spend(conn: Connection) -> None:
        volume(conn, 1)
        limits.check(conn, "p", None, volumes=1)
        pair[1].write_now(lambda other: volume(other, 5))
        limits.check(conn, "p", None, gigabytes=4)
        limits.check(conn, "p", None, gigabytes=5)

    await pair[0].write(tree)
    with pytest.raises(GigabytesLimit, match="6G has been consumed"):
        await pair[0].write(spend, together="us")


def _pools(conn: Connection) -> None:
    conn.execute(insert(hosts), [{"id": f"h{n}", "reachable": True, "availability_zone": "nova"} for n in range(3)])
    one = {"backend": "b", "name": "p", "driver": "lvm", "thin": False, "reported": {"capabilities": {}}}
    sizes = {"total_bytes": 10 * GIB, "free_bytes": 10 * GIB, "provisioned_bytes": 0, "max_over_subscription": 1.0}
    rows = [{"id": f"h{n}@b#p", "host_id": f"h{n}", **one, **sizes, "updated_at": utcnow()} for n in range(3)]
    conn.execute(insert(pools), rows)


async def test_two_coordinators_place_in_companies_and_fill_the_pools_exactly(pair: Pair) -> None:
    await pair[0].write(_pools)
    await pair[0].write(lambda conn: limits.put(conn, "p", {"volumes": -1, "gigabytes": -1}))
    flows = [workflow(KEYS, Scheduler()) for _ in pair]
    accepted = await asyncio.gather(*(pair[n % 2].write(accepting(n), together="new") for n in range(40)))

    async def done(number: int, operation: Operation) -> Operation:
        db, flow = pair[number % 2], flows[number % 2]
        placed, todo = await db.write(lambda conn: advance(conn, flow, operation), patient=True, together="place")
        if placed.state != "running":
            return placed
        assert todo is not None
        assert todo.call is not None
        assert todo.call.host_id == placed.results["place"]["host_id"]
        result = {"device_bytes": GIB, "usable_bytes": GIB}
        made, _ = await db.write(
            lambda conn: advance(conn, flow, placed, ("make", result), hopeful=True), patient=True, together="made"
        )
        return made

    ended = await asyncio.gather(*(done(number, operation) for number, (operation, _) in enumerate(accepted)))
    assert sorted(operation.state for operation in ended) == ["done"] * 30 + ["failed"] * 10
    for operation in ended:
        assert await pair[0].read(partial(operations.get, id=operation.id)) == operation
        row = await pair[0].read(partial(volumes.get, volume_id=operation.resource_id))
        assert row.status == ("available" if operation.state == "done" else "error")
    promised = await pair[0].read(lambda conn: set(conn.execute(select(pools.c.provisioned_bytes)).scalars()))
    assert promised == {10 * GIB}
    ends = select(events.c.payload).where(events.c.type == "create_volume.end")
    told = await pair[0].read(lambda conn: list(conn.execute(ends).scalars()))
    assert [(each["volume"]["status"], each["volume"]["metadata"]) for each in told] == [("available", {})] * 30


async def test_leases_are_renewed_past_what_is_being_moved_on(pair: Pair) -> None:
    held, go = threading.Event(), threading.Event()
    (busy, _), (idle, _) = [await pair[0].write(accepting(0)) for _ in range(2)]

    def move(conn: Connection) -> None:
        operations.fenced(conn, busy, step="x")
        held.set()
        assert go.wait(60)

    def left(conn: Connection) -> dict[str, float]:
        return dict(conn.execute(select(operation_rows.c.id, operation_rows.c.lease_until)).all())

    moving = asyncio.create_task(pair[0].write(move))
    await asyncio.to_thread(held.wait, 60)
    before = await pair[0].read(left)
    assert await pair[0].write(lambda conn: operations.renew(conn, "c0", [busy.id, idle.id])) == []
    after = await pair[0].read(left)
    assert after[busy.id] == before[busy.id]
    assert after[idle.id] > before[idle.id]
    go.set()
    await moving


async def test_what_moved_on_is_what_is_read_back(pair: Pair) -> None:
    operation, _ = await pair[0].write(accepting(0))
    await pair[1].write(lambda conn: operations.request_cancel(conn, operation.id))
    steps = {"place": {"state": "done", "result": {"pool": ("a", 1), "none": None}}}
    moved = await pair[0].write(lambda conn: operations.moved_on(conn, operation, steps=steps, step="place"))
    assert moved.cancel_requested
    assert moved == await pair[0].read(lambda conn: operations.get(conn, operation.id))
