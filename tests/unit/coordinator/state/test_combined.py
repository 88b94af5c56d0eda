"""Rows that one statement writes for many: as if each had been written by itself, or each by itself after all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.state import operations, volumes
from coordinator.state.errors import LeaseLost, NotStorable
from coordinator.state.operations import Operation
from coordinator.state.savepoint import savepoint
from coordinator.state.tables.events import events
from coordinator.state.tables.fleet import hosts
from coordinator.state.tables.operations import operations as operation_rows
from coordinator.state.tables.volumes import volumes as volume_rows
from coordinator.state.together import hopeful, known
from coordinator.state.transition import enter, move
from tests.support import databases

pytestmark = pytest.mark.only("postgresql")
KEYS = KeyStore(Kek(b"k" * 32))
REQUESTER = Requester("p", "u", "req", "c1")
Pair = databases.Pair


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with databases.two(tmp_path / "db") as made:
        yield made


def accepting(**more: Any) -> Any:
    return lambda conn: accept_volume(conn, REQUESTER, KEYS, NewVolume(size=1, **more))


async def test_what_is_told_of_a_new_volume_is_what_is_read_back(pair: Pair) -> None:
    """Its row, its operation and its event; beside it those that were written one by one."""
    texts = {"name": "Größe '1' \\ \"x\" %(rows)s", "description": "a\nb\t☃", "metadata": {"k": "ü", "%s": "v"}}
    together = await asyncio.gather(*(pair[0].write(accepting(**texts), together="us") for _ in range(5)))
    alone = await pair[0].write(accepting(**texts))
    for operation, row in (*together, alone):
        assert await pair[0].read(lambda conn, key=row.id: tuple(volumes.get(conn, key))) == tuple(row)
        assert await pair[0].read(partial(operations.get, id=operation.id)) == operation
    told = await pair[0].read(lambda conn: conn.execute(select(events).order_by(events.c.seq)).all())
    assert [each.resource_id for each in told] == [row.id for _, row in (*together, alone)]
    changing = {"id", "created_at"}
    shown = [{k: v for k, v in each.payload["volume"].items() if k not in changing} for each in told]
    assert shown == [shown[0]] * 6
    assert shown[0]["metadata"] == texts["metadata"]
    leases = await pair[0].read(lambda conn: list(conn.execute(select(operation_rows.c.lease_until)).scalars()))
    assert max(leases) - min(leases) < 600
    assert len(leases) == 6


async def test_a_volume_is_entered_changed_and_moved_before_it_is_written(pair: Pair) -> None:
    reckoned: list[bool] = []

    def make(conn: Connection) -> Any:
        reckoned.append(hopeful(conn))
        operation, row = accepting(metadata={"a": "b"})(conn)
        volumes.set_values(conn, row.id, pool_id="h@b#p", device_bytes=1 << 40)
        moved = operations.moved_on(conn, operation, steps={"place": {"state": "done"}}, step="place")
        return moved, move(conn, "volume", row.id, "created", usable_bytes=7)

    made = await asyncio.gather(*(pair[0].write(make, together="us") for _ in range(4)))
    assert all(reckoned)
    for operation, row in made:
        assert (row.status, row.pool_id, row.device_bytes, row.usable_bytes) == ("available", "h@b#p", 1 << 40, 7)
        assert await pair[1].read(lambda conn, key=row.id: tuple(volumes.get(conn, key))) == tuple(row)
        assert await pair[1].read(partial(operations.get, id=operation.id)) == operation


async def test_whose_lease_is_lost_hears_it_and_the_others_go_on(pair: Pair) -> None:
    accepted = [operation for operation, _ in [await pair[0].write(accepting()) for _ in range(6)]]
    lost = accepted[2]
    await pair[1].write(lambda conn: operations.raise_epoch(conn, lost, 1))

    def go(operation: Operation) -> Any:
        return lambda conn: operations.moved_on(conn, operation, step="x", steps={"x": {"state": "done"}})

    asked = [pair[0].write(go(operation), together="us") for operation in accepted]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in outcomes if each is not outcomes[2]] == [Operation] * 5
    assert isinstance(outcomes[2], LeaseLost)
    for operation in accepted:
        found = await pair[0].read(partial(operations.get, id=operation.id))
        assert found is not None
        assert found.step == (None if operation is lost else "x")


async def test_one_alone_whose_lease_is_lost_hears_it_too(pair: Pair) -> None:
    operation, _ = await pair[0].write(accepting())
    await pair[1].write(lambda conn: operations.raise_epoch(conn, operation, 1))
    with pytest.raises(LeaseLost):
        await pair[0].write(lambda conn: operations.moved_on(conn, operation, step="x"), together="us")


async def test_a_status_that_was_changed_behind_its_back_is_not_moved(pair: Pair) -> None:
    """The row is noted without being held: the condition at the end says no, and it is read anew."""
    _, row = await pair[0].write(accepting())
    tries: list[bool] = []

    def move_on(conn: Connection) -> Any:
        tries.append(hopeful(conn))
        volumes.with_any_state(conn, row.id)
        if hopeful(conn):
            conn.execute(update(volume_rows).where(volume_rows.c.id == row.id).values(status="error"))
            return move(conn, "volume", row.id, "created")
        return volumes.get(conn, row.id)

    kept = await pair[0].write(move_on, together="us")
    assert (tries, kept.status) == ([True, False], "creating")


async def test_a_company_does_not_wait_for_the_row_that_one_of_it_will_ask_for(pair: Pair) -> None:
    (_, one), (_, other) = [await pair[0].write(accepting()) for _ in range(2)]
    held, go, hopes = threading.Event(), threading.Event(), []

    def hold(conn: Connection) -> None:
        conn.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        volumes.get(conn, other.id)
        held.set()
        assert go.wait(60)

    def look(conn: Connection) -> Any:
        hopes.append(hopeful(conn))
        volumes.know_all(conn, [one.id, other.id])
        return known(conn, ("volume", one.id)), known(conn, ("volume", other.id))

    holder = asyncio.create_task(pair[1].write(hold))
    await asyncio.to_thread(held.wait, 60)
    noted = await pair[0].write(look, together="us")
    go.set()
    await holder
    assert (noted, hopes) == ((one, None), [True])


async def test_a_savepoint_that_is_rolled_back_takes_only_its_own(pair: Pair) -> None:
    def host(number: int) -> Any:
        def fn(conn: Connection) -> bool:
            accepting(name=f"v{number}")(conn)
            try:
                with savepoint(conn):
                    conn.execute(insert(hosts).values(id=f"h{number}", reachable=True))
                    if number == 3:
                        raise KeyError
            except KeyError:
                return False
            return True

        return fn

    outcomes = await asyncio.gather(*(pair[0].write(host(number), together="us") for number in range(6)))
    assert outcomes == [number != 3 for number in range(6)]
    names = await pair[0].read(lambda conn: sorted(conn.execute(select(volume_rows.c.name)).scalars()))
    assert names == [f"v{number}" for number in range(6)]
    assert await pair[0].read(lambda conn: len(conn.execute(select(hosts.c.id)).all())) == 5


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
async def test_what_can_not_be_stored_is_refused_for_its_own_caller(pair: Pair, name: str) -> None:
    names = ["a", "b", name, "c"]
    asked = [pair[0].write(accepting(name=each), together="us") for each in names]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(outcomes[2], NotStorable)
    alone = await asyncio.gather(pair[0].write(accepting(name=name), together="us"), return_exceptions=True)
    assert isinstance(alone[0], NotStorable)
    kept = await pair[0].read(lambda conn: sorted(conn.execute(select(volume_rows.c.name)).scalars()))
    assert kept == ["a", "b", "c"]


async def test_rows_of_a_snapshot_are_entered_so_too(pair: Pair) -> None:
    _, volume = await pair[0].write(accepting())

    def snapshot(number: int) -> Any:
        values = {"project_id": "p", "user_id": "u", "volume_id": volume.id, "volume_size": 1, "name": f"s{number}"}
        return lambda conn: enter(conn, "snapshot", "create", id=f"{number:036}", **values)

    made = await asyncio.gather(*(pair[0].write(snapshot(number), together="us") for number in range(3)))
    from coordinator.state.tables.snapshots import snapshots

    found = await pair[0].read(lambda conn: conn.execute(select(snapshots).order_by(snapshots.c.id)).all())
    assert [tuple(row) for row in found] == [tuple(row) for row in made]
