"""create, delete, extend and snapshot, from acceptance to the file on a host's disk, on a wire that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select, update

from agent.base.errors import Invalid, NotFound
from coordinator.operations.create_snapshot import NewSnapshot, accept_snapshot
from coordinator.operations.delete_snapshot import accept_snapshot_delete
from coordinator.operations.delete_volume import VolumeHasSnapshots, accept_delete
from coordinator.operations.errors import NotRetryable, WorkUnknown
from coordinator.operations.extend_volume import accept_extend
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.quota import limits
from coordinator.quota.errors import GigabytesLimit, VolumeLimit
from coordinator.quota.usage import used
from coordinator.state import fleet, messages, operations, snapshots, volumes
from coordinator.state.errors import DatabaseUnavailable, TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.tables.fleet import pools
from coordinator.state.tables.operations import operations as operations_table
from coordinator.state.tables.volumes import volumes as volume_rows
from tests.unit.coordinator.operations.support import REQUESTER, Site, new_engine, report_pools, site

GIB = 1 << 30


async def create(here: Site, **wanted: Any) -> Row[Any]:
    new = NewVolume(**{"size": 1, **wanted})
    operation, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
    await ended(here, operation)
    return await here.db.read(lambda conn: volumes.get(conn, row.id))


async def ended(here: Site, operation: Operation) -> Operation:
    done = await here.engine.wait(operation.id, 60)
    assert done is not None, "the operation is stuck"
    return done


def path_of(here: Site, row: Row[Any]) -> Path:
    return here.folders[row.host_id] / "volumes" / "volumes" / row.id


async def test_a_volume_becomes_available_and_is_a_file_of_its_size(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here, name="first", metadata={"a": "b"})
        assert row.status == "available"
        assert path_of(here, row).stat().st_size == GIB
        assert (row.device_bytes, row.usable_bytes, row.host_id) == (GIB, GIB, "host-a")


async def test_delete_leaves_neither_file_nor_claim_nor_usage(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        operation, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, row.id), None))
        assert (await ended(here, operation)).state == "done"
        assert not path_of(here, row).exists()
        with pytest.raises(NotFound):
            await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (await here.db.read(lambda conn: used(conn, "p1")))["gigabytes"] == 0
        claimed = await here.db.read(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalar_one())
        assert claimed == 0


async def test_extend_grows_file_row_and_claim(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        operation, _ = await here.engine.submit(
            lambda conn: (accept_extend(conn, REQUESTER, row.id, 3, attached=False), None)
        )
        await ended(here, operation)
        row = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (row.status, row.size, row.reserved_size, row.device_bytes) == ("available", 3, 0, 3 * GIB)
        assert path_of(here, row).stat().st_size == 3 * GIB
        with pytest.raises(Invalid, match="must be greater"):
            await here.db.write(lambda conn: accept_extend(conn, REQUESTER, row.id, 3, attached=False))


@pytest.mark.parametrize("refused", [False, True])
async def test_a_poll_in_the_middle_of_an_extend_loses_no_claim(tmp_path: Path, refused: bool) -> None:
    async with site(tmp_path) as here:
        row, wire = await create(here), here.hosts.wires["host-a"]
        assert wire.backend is not None
        if refused:
            path_of(here, row).unlink()
        wire.held = asyncio.Event()
        operation, _ = await here.engine.submit(
            lambda conn: (accept_extend(conn, REQUESTER, row.id, 3, attached=False), None)
        )
        async with asyncio.timeout(60):
            while await claimed(here) == GIB:
                await asyncio.sleep(0)
        await report_pools(here.db, "host-a", wire.backend)
        assert await claimed(here) == 3 * GIB
        wire.held.set()
        await ended(here, operation)
        left = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert await claimed(here) == left.device_bytes == (1 if refused else 3) * GIB
        await report_pools(here.db, "host-a", wire.backend)
        assert await claimed(here) == left.device_bytes


async def test_a_volume_waits_for_a_host_that_is_away_for_a_moment(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.db.write(lambda conn: fleet.set_reachable(conn, "host-a", reachable=False))
        new = NewVolume(size=1)
        operation, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        assert await here.engine.wait(operation.id, 0.3) is None
        assert (await here.db.read(lambda conn: volumes.get(conn, row.id))).status == "creating"
        await here.db.write(lambda conn: fleet.set_reachable(conn, "host-a", reachable=True))
        assert (await ended(here, operation)).state == "done"
        await here.db.write(lambda conn: fleet.set_reachable(conn, "host-a", reachable=False))
        operation, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        async with asyncio.timeout(60):
            while "place" not in (await _row(here, operation)).steps:
                await asyncio.sleep(0)
        await here.engine.cancel(operation.id)
        assert (await ended(here, operation)).state == "cancelled"


async def _row(here: Site, operation: Operation) -> Operation:
    found = await here.db.read(lambda conn: operations.get(conn, operation.id))
    assert found is not None
    return found


async def claimed(here: Site) -> int:
    return int(await here.db.read(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalar_one()))


async def test_snapshot_clone_and_the_order_of_deletion(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        path_of(here, row).write_bytes(b"x" * 4096)
        import os

        os.truncate(path_of(here, row), GIB)
        wanted = NewSnapshot(volume_id=row.id, name="s")
        operation, snapshot = await here.engine.submit(lambda c: accept_snapshot(c, REQUESTER, here.keys, wanted))
        await ended(here, operation)
        assert (await here.db.read(lambda conn: snapshots.get(conn, snapshot.id))).status == "available"
        clone = await create(here, size=None, snapshot_id=snapshot.id)
        assert clone.status == "available"
        with path_of(here, clone).open("rb") as copied:
            assert copied.read(4097) == b"x" * 4096 + b"\0"
        with pytest.raises(VolumeHasSnapshots, match="1 dependent"):
            await here.db.write(lambda conn: accept_delete(conn, REQUESTER, row.id))
        operation, _ = await here.engine.submit(lambda c: (accept_snapshot_delete(c, REQUESTER, snapshot.id), None))
        await ended(here, operation)
        operation, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, row.id), None))
        assert (await ended(here, operation)).state == "done"


async def test_a_row_that_names_no_pool_is_worked_with_where_its_back_end_is(tmp_path: Path) -> None:
    """Such as from another hand. The host has the last word on its space; copies are made beside it."""
    async with site(tmp_path, ("host-a", "host-b")) as here:
        row = await create(here)
        poolless = update(volume_rows).where(volume_rows.c.id == row.id).values(pool_id=None, pool=None)
        await here.db.write(lambda conn: conn.execute(poolless))
        grown, _ = await here.engine.submit(
            lambda conn: (accept_extend(conn, REQUESTER, row.id, 2, attached=False), None)
        )
        assert (await ended(here, grown)).state == "done"
        assert path_of(here, row).stat().st_size == 2 * GIB
        snapped, snapshot = await here.engine.submit(
            lambda conn: accept_snapshot(conn, REQUESTER, here.keys, NewSnapshot(volume_id=row.id))
        )
        assert (await ended(here, snapped)).state == "done"
        copies = [await create(here, size=2, **source) for source in
                  ({"source_volid": row.id}, {"snapshot_id": snapshot.id})]  # fmt: skip
        assert {(copy.status, copy.pool_id) for copy in copies} == {("available", f"{row.host_id}@files#files")}
        for operation in (
            await here.engine.submit(lambda conn: (accept_snapshot_delete(conn, REQUESTER, snapshot.id), None)),
            await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, copies[0].id), None)),
        ):
            assert (await ended(here, operation[0])).state == "done"
        gone, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, row.id), None))
        assert (await ended(here, gone)).state == "done"
        assert not path_of(here, row).exists()


async def test_lost_answers_do_nothing_twice(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wire = here.hosts.wires["host-a"]
        wire.lose_answers = 3
        row = await create(here)
        assert row.status == "available"
        assert {request.key for request in wire.posted} == {wire.posted[0].key}
        assert len(wire.posted) > 1


async def test_a_create_that_was_not_delivered_goes_elsewhere(tmp_path: Path) -> None:
    async with site(tmp_path, ("host-a", "host-b")) as here:
        here.hosts.wires["host-a"].lose_requests = 100
        here.hosts.wires["host-b"].lose_requests = 0

        def lost(host_id: str) -> None:
            here.db.write_now(lambda conn: fleet.set_reachable(conn, host_id, reachable=False))

        here.hosts.lost = lost
        rows = [await create(here) for _ in range(3)]
        assert {(row.status, row.host_id) for row in rows} == {("available", "host-b")}


async def test_no_room_is_an_error_with_a_message_that_explains_each_pool(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.db.write(lambda conn: limits.put(conn, "p1", {"gigabytes": -1}))
        row = await create(here, size=1 << 24)
        assert row.status == "error"
        assert row.host_id is None
        told = await here.db.read(lambda conn: messages.listing(conn, "p1"))
        assert "[CapacityFilter]" in told[0].user_message
        assert "host-a" not in told[0].user_message
        (work,) = await here.db.read(lambda conn: operations.listing(conn, resource_id=row.id))
        assert "host-a@files#" in work.error["message"]
        assert "over-committed" in work.error["message"]
        operation, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, row.id), None))
        assert (await ended(here, operation)).state == "done"


async def test_what_is_made_of_a_volume_must_fit_its_pool_or_fails_and_says_why(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        full = update(pools).values(provisioned_bytes=pools.c.total_bytes * 1000)
        before = await here.db.write(lambda conn: conn.execute(full.returning(pools.c.provisioned_bytes)).scalar_one())
        wanted = NewSnapshot(volume_id=row.id, name="s")
        operation, made = await here.engine.submit(lambda conn: accept_snapshot(conn, REQUESTER, here.keys, wanted))
        assert (await ended(here, operation)).state == "failed"
        snapshot = await here.db.read(lambda conn: snapshots.get(conn, made.id))
        copy = await create(here, source_volid=row.id)
        assert (snapshot.status, copy.status, copy.host_id) == ("error", "error", None)
        operation, _ = await here.engine.submit(lambda conn: (accept_snapshot_delete(conn, REQUESTER, made.id), None))
        assert (await ended(here, operation)).state == "done"
        grow = lambda conn: (accept_extend(conn, REQUESTER, row.id, 2, attached=False), None)  # noqa: E731
        operation, _ = await here.engine.submit(grow)
        assert (await ended(here, operation)).state == "failed"
        after = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (after.status, after.size, after.device_bytes, after.reserved_size) == ("available", 1, GIB, 0)
        told = await here.db.read(lambda conn: messages.listing(conn, "p1"))
        reasons = {one.resource_uuid: one.user_message for one in told}
        assert set(reasons) == {made.id, copy.id, row.id}
        assert all("[CapacityFilter]" in text and "host-a" not in text for text in reasons.values()), reasons
        now = await here.db.read(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalar_one())
        assert now == before


async def test_quota_is_exact_under_concurrency(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        new = NewVolume(size=1)

        async def one() -> object:
            return await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))

        results = await asyncio.gather(*(one() for _ in range(14)), return_exceptions=True)
        assert sum(isinstance(result, VolumeLimit) for result in results) == 4
        assert sum(isinstance(result, tuple) for result in results) == 10
        await here.db.write(lambda conn: limits.put(conn, "p1", {"volumes": 100, "gigabytes": 12}))
        with pytest.raises(GigabytesLimit, match="Requested 3G, quota is 12G and 10G has been consumed"):
            await here.db.write(lambda conn: accept_volume(conn, REQUESTER, here.keys, NewVolume(size=3)))


async def test_cancel_undoes_and_says_so(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wire = here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        new = NewVolume(size=1)
        operation, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        await wire.arrived.wait()
        wire.lose_answers = 1
        await here.engine.cancel(operation.id)
        wire.held.set()
        done = await ended(here, operation)
        row = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (done.state, row.status) in {("cancelled", "error"), ("done", "available")}
        if done.state == "cancelled":
            assert not list((here.folders["host-a"] / "volumes" / "volumes").iterdir())


async def test_a_paused_coordinator_can_do_nothing_after_the_takeover(tmp_path: Path) -> None:
    """Its POST is held back until the new owner has undone the operation; the agent refuses it by its epoch."""
    async with site(tmp_path) as here:
        wire = here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        new = NewVolume(size=1)
        operation, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        await wire.arrived.wait()
        held, wire.held = wire.held, None
        other = new_engine(here.db, here.hosts, here.keys, "c2")
        await other.begin()
        done = await other.wait(operation.id, 60)
        assert done is not None
        assert (done.state, done.epoch, done.owner) == ("done", 2, "c2")
        delete, _ = await other.submit(lambda conn: (accept_delete(conn, REQUESTER, row.id), None))
        await other.wait(delete.id, 20)
        held.set()
        await asyncio.sleep(0.2)
        assert not list((here.folders["host-a"] / "volumes" / "volumes").iterdir())
        late = [request for request in wire.posted if request.key.startswith(operation.id)]
        assert sorted(request.epoch for request in late) == [1, 2]
        assert (await here.db.read(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalar_one())) == 0
        await other.close(0.2)


async def test_states_refuse_what_the_table_does_not_have(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        await here.db.write(lambda conn: volumes.set_values(conn, row.id, attention="x"))
        operation, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, row.id), None))
        with pytest.raises((TransitionRefused, NotFound)):
            await here.db.write(lambda conn: accept_delete(conn, REQUESTER, row.id))
        await ended(here, operation)


async def test_what_could_not_be_undone_needs_attention_and_can_be_retried(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wire = here.hosts.wires["host-a"]
        folder = here.folders["host-a"] / "volumes" / "volumes"
        wire.held = asyncio.Event()
        new = NewVolume(size=1)
        operation, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        await wire.arrived.wait()
        wire.held.set()
        wire.lose_answers, wire.lose_requests = 1, 1 << 30
        here.hosts.away.add("host-a")
        done = await ended(here, operation)
        assert done.state == "needs-attention"
        assert done.error is not None
        assert "could not be reached" in done.error["message"]
        assert "brickyard operation retry" in done.error["hint"]
        volume = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert volume.status == "error"
        assert "could not be reached" in volume.attention
        here.hosts.away.clear()
        wire.lose_requests = 0
        again = await here.engine.retry(operation.id)
        assert (await ended(here, again)).state == "failed"
        assert not list(folder.iterdir())
        assert (await here.db.read(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalar_one())) == 0
        with pytest.raises(NotRetryable, match="is failed"):
            await here.engine.retry(operation.id)


async def test_work_of_a_release_that_is_not_known_is_not_taken_up_by_hand(tmp_path: Path) -> None:
    """It would be at work for ever: nobody here can undo it, and nobody else would claim it."""
    async with site(tmp_path) as here:
        operation, _ = await here.engine.submit(
            lambda conn: accept_volume(conn, REQUESTER, here.keys, NewVolume(size=1))
        )
        await ended(here, operation)
        later = {"kind": "teleport_volume", "version": 3, "state": "needs-attention"}
        await here.db.write(lambda conn: conn.execute(update(operations_table).values(**later)))
        with pytest.raises(WorkUnknown, match="teleport_volume, version 3") as refused:
            await here.engine.retry(operation.id)
        assert "brickyard volume repair" in str(refused.value.remedy)
        kept = await here.db.read(lambda conn: operations.get(conn, operation.id))
        assert kept is not None
        assert (kept.state, kept.epoch) == ("needs-attention", operation.epoch)
        assert operation.id not in here.engine.held()


async def test_a_database_that_fails_for_a_while_does_not_strand_operations(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        broken = 3
        write = here.db.write

        async def failing(fn: Any, **more: Any) -> Any:
            nonlocal broken
            if broken:
                broken -= 1
                raise DatabaseUnavailable(reason="database or disk is full")
            return await write(fn, **more)

        new = NewVolume(size=1)
        operation, _ = await write(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        here.db.write = failing
        here.engine.start(operation)
        assert (await ended(here, operation)).state == "done"
        assert broken == 0


async def test_operations_that_wait_for_a_dead_host_leave_room_for_others(tmp_path: Path) -> None:
    async with site(tmp_path, ("host-a", "host-b"), parallel=2, away_deadline_s=30.0) as here:
        dead = here.hosts.wires["host-a"]
        row = await create(here)
        while row.host_id != "host-a":
            row = await create(here)
        rows = [row, *[await create(here, source_volid=row.id) for _ in range(3)]]
        dead.lose_requests = 1 << 30
        here.hosts.away.add("host-a")
        for each in rows:
            await here.engine.submit(lambda conn, each=each: (accept_delete(conn, REQUESTER, each.id), None))
        await asyncio.sleep(1.5)
        await here.db.write(lambda conn: fleet.set_reachable(conn, "host-a", reachable=False))
        assert (await create(here)).status == "available"
