"""A host that is drained: what began there ends, what empties it goes on, the rest waits until it is enabled again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.base.errors import NotFound
from coordinator.operations import drain_host, waits
from coordinator.operations.create_snapshot import NewSnapshot, accept_snapshot
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.drain_host import Draining
from coordinator.operations.extend_volume import accept_extend
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.state import fleet, issues, operations, services, volumes
from coordinator.state.operations import Operation
from tests.unit.coordinator.operations.support import REQUESTER, Site, new_engine, site
from tests.unit.coordinator.operations.test_volume_workflows import create, ended


async def grow(here: Site, volume_id: str, size: int = 2) -> Operation:
    operation, _ = await here.engine.submit(
        lambda conn: (accept_extend(conn, REQUESTER, volume_id, size, attached=False), None)
    )
    return operation


async def drain(here: Site, host_id: str = "host-a", reason: str | None = "new memory") -> None:
    await here.db.write(lambda conn: drain_host.drain(conn, host_id, reason))


async def enable(here: Site, host_id: str = "host-a") -> None:
    await here.db.write(lambda conn: fleet.set_enabled(conn, host_id, enabled=True))


async def until(here: Site, met: Callable[[Draining], bool], host_id: str = "host-a") -> Draining:
    async with asyncio.timeout(120):
        while not met(found := await here.db.read(lambda conn: drain_host.look(conn, host_id))):
            await asyncio.sleep(0.05)
    return found


async def test_work_waits_until_the_host_is_enabled_and_says_so(tmp_path: Path) -> None:
    async with site(tmp_path, away_deadline_s=300) as here:
        row = await create(here)
        await drain(here)
        growing = await grow(here, row.id)
        found = await until(here, lambda found: len(found.waiting) == 1)
        assert (found.waiting[0].id, found.working, found.reason) == (growing.id, [], "new memory")
        assert found.waiting[0].waiting == "drained: host host-a begins nothing new (new memory)"
        assert len(here.hosts.wires["host-a"].posted) == 1
        (issue,) = await here.db.read(issues.listing)
        assert (issue.code, issue.resource_id) == (waits.CODE, growing.id)
        assert issue.remedy.startswith("When the host is ready: brickyard host enable host-a; the work then goes on")
        await until(here, lambda found: found.is_quiet)
        await enable(here)
        assert (await ended(here, growing)).state == "done"
        assert (await here.db.read(lambda conn: volumes.get(conn, row.id))).size == 2
        assert await here.db.read(issues.listing) == []
        found = await here.db.read(lambda conn: drain_host.look(conn, "host-a"))
        assert (found.drained_at, found.is_quiet, found.waiting) == (None, False, [])


async def test_what_empties_it_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path, away_deadline_s=300) as here:
        row, kept = await create(here), await create(here)
        await drain(here, reason=None)
        deleting, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, row.id), None))
        assert (await ended(here, deleting)).state == "done"
        found = await here.db.read(lambda conn: drain_host.look(conn, "host-a"))
        assert [(left.what, left.ids) for left in found.left] == [("volumes", (kept.id,))]
        assert "are not moved to another one yet" in found.left[0].means


async def test_what_began_there_is_ended_and_shown_meanwhile(tmp_path: Path) -> None:
    async with site(tmp_path, ("host-a", "host-b"), away_deadline_s=300) as here:
        row = await create(here)
        name = str(row.host_id)
        wire = here.hosts.wires[name]
        wire.held = asyncio.Event()
        growing = await grow(here, row.id)
        await wire.arrived.wait()
        await drain(here, name)
        found = await until(here, lambda found: len(found.working) == 1, name)
        assert (found.working[0].id, found.is_quiet) == (growing.id, False)
        elsewhere = await create(here)
        assert elsewhere.host_id != name
        wire.held.set()
        assert (await ended(here, growing)).state == "done"
        assert (await until(here, lambda found: found.is_quiet, name)).working == []


async def test_what_waits_can_be_cancelled_and_no_copy_is_placed_there(tmp_path: Path) -> None:
    async with site(tmp_path, away_deadline_s=300) as here:
        row = await create(here)
        await drain(here)
        snap, _ = await here.engine.submit(
            lambda conn: accept_snapshot(conn, REQUESTER, here.keys, NewSnapshot(volume_id=row.id))
        )
        await until(here, lambda found: len(found.waiting) == 1)
        await here.engine.cancel(snap.id)
        assert (await ended(here, snap)).state == "cancelled"
        copy = NewVolume(size=1, source_volid=row.id)
        copying, _ = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, copy))
        after = await ended(here, copying)
        assert (after.state, (after.error or {})["code"]) == ("failed", "scheduler.no-pool")
        assert "host-a@files#files is disabled (new memory)" in (after.error or {})["message"]


async def test_a_wait_that_is_too_long_ends_and_changes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path, away_deadline_s=300) as here:
        row = await create(here)
        here.engine.wait_for_hosts(0.2)
        await drain(here)
        after = await ended(here, await grow(here, row.id))
        assert (after.state, (after.error or {})["code"]) == ("failed", "operation.host-drained")
        kept = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (kept.size, kept.status) == (1, "available")


async def test_who_takes_over_waits_as_well(tmp_path: Path) -> None:
    async with site(tmp_path, away_deadline_s=300) as here:
        row = await create(here)
        await drain(here)
        growing = await grow(here, row.id)
        await until(here, lambda found: len(found.waiting) == 1)
        await here.engine.close(grace_s=0.0)
        here.engine = new_engine(here.db, here.hosts, here.keys, owner="c2", away_deadline_s=300)
        await here.db.write(lambda conn: operations.let_go(conn, "c1"))
        await here.engine.begin()
        found = await until(here, lambda found: bool(found.waiting) and found.waiting[0].owner == "c2")
        assert (found.waiting[0].id, found.working) == (growing.id, [])
        await enable(here)
        assert (await ended(here, growing)).state == "done"


async def test_what_was_given_to_a_host_before_it_is_drained_counts_as_begun_whoever_takes_over(tmp_path: Path) -> None:
    """Nobody knows whether it came there: it is shown as at work until it has ended."""
    async with site(tmp_path, away_deadline_s=300) as here:
        wire = here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        making, row = await here.engine.submit(
            lambda conn: accept_volume(conn, REQUESTER, here.keys, NewVolume(size=1))
        )
        await wire.arrived.wait()
        await here.engine.close(grace_s=0.0)
        await drain(here)
        found = await until(here, lambda found: bool(found.working))
        assert ([one.id for one in found.working], found.is_quiet, wire.posted) == ([making.id], False, [])
        wire.held.set()
        here.engine = new_engine(here.db, here.hosts, here.keys, owner="c2", away_deadline_s=300)
        await here.db.write(lambda conn: operations.let_go(conn, "c1"))
        await here.engine.begin()
        assert (await ended(here, making)).state == "done"
        assert (await here.db.read(lambda conn: volumes.get(conn, row.id))).host_id == "host-a"
        assert (await until(here, lambda found: found.is_quiet)).working == []


async def test_enabling_by_whatever_call_ends_it(tmp_path: Path) -> None:
    async with site(tmp_path, away_deadline_s=300) as here:
        await drain(here)
        await here.db.write(lambda conn: services.set_enabled(conn, "host-a@files", enabled=True))
        assert await here.db.read(lambda conn: fleet.drained(conn, "host-a")) is None
        await drain(here, reason=None)
        assert await here.db.read(lambda conn: fleet.drained(conn, "host-a")) == ""
        with pytest.raises(NotFound):
            await here.db.write(lambda conn: drain_host.drain(conn, "moon", None))
        with pytest.raises(NotFound):
            await here.db.read(lambda conn: drain_host.look(conn, "moon"))
