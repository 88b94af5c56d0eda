"""A new volume that its host can not make: it is made elsewhere, and nothing of the attempt is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

import agent.backends.errors
import agent.backends.rbd_errors
import agent.privsep.errors  # noqa: F401
from agent.base.errors import BrickyardError
from agent.base.ids import new_id
from coordinator.operations.advance import jobs_of
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.elsewhere import OF_THE_PLACE
from coordinator.operations.extend_volume import accept_extend
from coordinator.scheduler.filters import FILTERS
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.settings import SchedulerSettings
from coordinator.state import messages, operations, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.fleet import pools
from tests.unit.coordinator.operations.support import REQUESTER, Site, site
from tests.unit.coordinator.operations.test_volume_workflows import create, ended, path_of

HOSTS = ("host-a", "host-b", "host-c", "host-d")


async def fill(here: Site, host: str) -> None:
    """Another hand's file takes all that may be promised there; the coordinator does not know yet.

    By what it knows all hosts have the same, so that they are tried by name.
    """
    await here.db.write(lambda conn: conn.execute(update(pools).values(total_bytes=100 << 30, free_bytes=100 << 30)))
    backend = here.hosts.wires[host].backend
    assert backend is not None
    there = here.folders[host] / "volumes" / "volumes" / new_id()
    there.touch()
    os.truncate(there, (await backend.pool()).total_bytes * 20 - (1 << 29))
    await backend.inventory()


async def promised(here: Site) -> dict[str, int]:
    found = await here.db.read(lambda conn: conn.execute(select(pools.c.host_id, pools.c.provisioned_bytes)).all())
    return {row.host_id: row.provisioned_bytes >> 30 for row in found}


async def of(here: Site, volume_id: str) -> Operation:
    found = await here.db.read(lambda conn: operations.listing(conn, resource_id=volume_id))
    return found[-1]


def kinds(here: Site, host: str) -> list[str]:
    return [request.kind for request in here.hosts.wires[host].posted]


async def test_a_volume_that_its_host_refuses_is_made_by_another(tmp_path: Path) -> None:
    async with site(tmp_path, HOSTS[:2]) as here:
        await fill(here, "host-a")
        row = await create(here)
        assert (row.status, row.host_id, row.attention) == ("available", "host-b", None)
        assert path_of(here, row).stat().st_size == 1 << 30
        assert await promised(here) == {"host-a": 0, "host-b": 1}
        assert kinds(here, "host-a") == ["volume.create", "volume.delete"]
        done = await of(here, row.id)
        assert (done.state, done.error) == ("done", None)
        assert "are too many" in done.steps["place"]["tried"]["host-a@files#files"]
        assert ("host-a", f"{done.id}/make.undo/1") in jobs_of(done)
        assert not await here.db.read(lambda conn: messages.listing(conn, "p1"))
        operation, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, row.id), None))
        assert (await ended(here, operation)).state == "done"
        assert await promised(here) == {"host-a": 0, "host-b": 0}


async def test_what_each_host_said_is_read_from_the_operation(tmp_path: Path) -> None:
    async with site(tmp_path, HOSTS[:2]) as here:
        for host in HOSTS[:2]:
            await fill(here, host)
        row = await create(here)
        assert (row.status, row.host_id) == ("error", None)
        (told,) = await here.db.read(lambda conn: messages.listing(conn, "p1"))
        assert "[IgnoreAttemptedHostsFilter]" in told.user_message
        assert "host-a" not in told.user_message
        failed = (await of(here, row.id)).error
        assert failed is not None
        for host in HOSTS[:2]:
            assert f"{host}@files#files did not take it (" in failed["message"]
        assert set((await promised(here)).values()) == {0}


async def test_so_many_pools_are_tried_and_no_more(tmp_path: Path) -> None:
    async with site(tmp_path, HOSTS) as here:
        for host in HOSTS[:3]:
            await fill(here, host)
        row = await create(here)
        assert row.status == "error"
        assert [len(kinds(here, host)) for host in HOSTS] == [2, 2, 2, 0]
        (told,) = await here.db.read(lambda conn: messages.listing(conn, "p1"))
        assert "are too many" in told.user_message


async def test_in_a_lottery_another_is_drawn(tmp_path: Path) -> None:
    luck = Scheduler(SchedulerSettings(choice="lottery", weighers=("CapacityWeigher",)), seed=3)
    async with site(tmp_path, HOSTS[:3], scheduler=luck) as here:
        for host in HOSTS[:2]:
            await fill(here, host)
        for _ in range(4):
            row = await create(here)
            assert (row.status, row.host_id) == ("available", "host-c")
        assert {len(kinds(here, host)) for host in HOSTS[:2]} != {0}, "none was drawn that refused"


async def test_what_grows_beyond_what_its_host_promises_is_refused_and_takes_nothing(tmp_path: Path) -> None:
    """Though the coordinator asks for no space: the host has the last word."""
    lax = Scheduler(SchedulerSettings(filters=tuple(set(FILTERS) - {"CapacityFilter"})))
    async with site(tmp_path, HOSTS[:1], scheduler=lax) as here:
        row = await create(here)
        await fill(here, "host-a")
        sources: list[dict[str, Any]] = [{}, {"source_volid": row.id}]
        for source in sources:
            assert (await create(here, **source)).status == "error"
        grown, _ = await here.engine.submit(
            lambda conn: (accept_extend(conn, REQUESTER, row.id, 2, attached=False), None)
        )
        after = await ended(here, grown)
        assert (after.state, (after.error or {})["code"]) == ("failed", "backend.over-subscribed")
        kept = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (kept.status, kept.size, kept.reserved_size) == ("error_extending", 1, 0)
        assert path_of(here, row).stat().st_size == 1 << 30
        assert await promised(here) == {"host-a": 1}
        told = await here.db.read(lambda conn: messages.listing(conn, "p1"))
        assert row.id in {one.resource_uuid for one in told}


async def test_what_lies_in_a_pool_is_not_copied_to_another(tmp_path: Path) -> None:
    async with site(tmp_path, HOSTS[:2]) as here:
        source = await create(here)
        (other,) = set(HOSTS[:2]) - {source.host_id}
        await fill(here, source.host_id)
        copy = await create(here, source_volid=source.id)
        assert (copy.status, kinds(here, other)) == ("error", [])


def _codes(of: type[BrickyardError] = BrickyardError) -> set[str]:
    return {of.code}.union(*map(_codes, of.__subclasses__()))


def test_each_error_of_the_place_is_one_that_hosts_have() -> None:
    assert not OF_THE_PLACE - _codes()
