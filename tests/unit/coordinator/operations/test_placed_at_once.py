"""New volumes that are placed by the transaction which accepts them, on PostgreSQL; elsewhere by the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.quota import limits
from coordinator.state import operations, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.fleet import pools
from coordinator.state.tables.volumes import volumes as volume_rows
from tests.unit.coordinator.operations.support import REQUESTER, Site, new_engine, site

GIB = 1 << 30


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as found:
        await found.db.write(lambda conn: limits.put(conn, "p1", {"volumes": -1, "gigabytes": -1}))
        yield found


def accepting(made: Site, size: int = 1) -> Any:
    wanted = NewVolume(size=size)
    return made.engine.submit(
        lambda conn: accept_volume(conn, REQUESTER, made.keys, wanted), together=wanted.company("p1")
    )


async def _ended(made: Site, operation: Operation) -> Operation:
    ended = await made.engine.wait(operation.id, 60)
    assert ended is not None
    return ended


async def _row(made: Site, operation: Operation) -> Any:
    return await made.db.read(lambda conn: volumes.with_any_state(conn, operation.resource_id))


def _sums(conn: Connection) -> tuple[int, int]:
    promised = conn.execute(select(pools.c.provisioned_bytes)).scalars().all()
    held = conn.execute(select(volume_rows.c.device_bytes).where(~volume_rows.c.deleted)).scalars().all()
    return sum(promised), sum(each or 0 for each in held)


async def test_each_is_placed_and_made_whichever_way(made: Site) -> None:
    first, _ = await accepting(made)
    assert (await _ended(made, first)).state == "done"
    # What the first one read is known for a second; those that come later than that are placed the other way.
    accepted = [operation for operation, _ in await asyncio.gather(*(accepting(made) for _ in range(20)))]
    ended = [await _ended(made, operation) for operation in accepted]
    assert {each.state for each in ended} == {"done"}
    for operation in ended:
        assert await made.db.read(partial(operations.get, id=operation.id)) == operation
        assert (await _row(made, operation)).status == "available"
        assert operation.results["place"]["pool_id"] == "host-a@files#files"
    assert await made.db.read(_sums) == (21 * GIB, 21 * GIB)
    posted = [request.key for request in made.hosts.wires["host-a"].posted]
    assert len(posted) == len(set(posted)) == 21


@pytest.mark.only("postgresql")
async def test_it_is_placed_when_it_is_accepted(made: Site) -> None:
    wire = made.hosts.wires["host-a"]
    await _ended(made, (await accepting(made))[0])
    placed = False
    while not placed:  # what is known of the pools may just have grown old
        wire.held = asyncio.Event()
        operation, _ = await accepting(made)
        found = await made.db.read(partial(operations.get, id=operation.id))
        assert found is not None
        placed = operation.step == "make"
        if placed:
            assert found == operation
            assert found.steps["make"] == {"state": "running", "host": "host-a"}
            assert (await _row(made, operation)).pool_id == "host-a@files#files"
        wire.held.set()
        assert (await _ended(made, operation)).state == "done"


async def test_what_has_no_place_is_accepted_all_the_same_and_fails_by_itself(made: Site) -> None:
    await _ended(made, (await accepting(made))[0])
    huge = 1 << 20  # GiB
    accepted = await asyncio.gather(*(accepting(made, size) for size in (1, huge, 1, 1)))
    ended = [await _ended(made, operation) for operation, _ in accepted]
    assert [each.state for each in ended] == ["done", "failed", "done", "done"]
    alone = await _ended(made, (await accepting(made, huge))[0])
    assert alone.state == "failed"
    assert alone.error is not None
    assert alone.error == {**(ended[1].error or {})}
    assert (await _row(made, alone)).status == "error"
    assert await made.db.read(_sums) == (4 * GIB, 4 * GIB)


@pytest.mark.only("postgresql")
async def test_one_whose_coordinator_died_behind_the_acceptance_is_made_by_another(made: Site) -> None:
    await _ended(made, (await accepting(made))[0])
    wire = made.hosts.wires["host-a"]
    wire.held = asyncio.Event()
    accepted = [operation for operation, _ in await asyncio.gather(*(accepting(made) for _ in range(5)))]
    for task in [*made.engine._tasks.values()]:
        task.cancel()
    await asyncio.gather(*made.engine._tasks.values(), return_exceptions=True)
    wire.held.set()
    wire.held = None
    other = new_engine(made.db, made.hosts, made.keys, owner="c2")
    await other.begin()
    for operation in accepted:
        ended = await other.wait(operation.id, 60)
        assert ended is not None
        assert (ended.state, ended.owner) == ("done", "c2")
    await other.close(0.2)
    assert await made.db.read(_sums) == (6 * GIB, 6 * GIB)
