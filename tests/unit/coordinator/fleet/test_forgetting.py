"""Finished jobs whose acknowledgement was lost are dropped when their host is polled; no others are."""

from __future__ import annotations

from pathlib import Path

from agent.base.ids import new_id
from agent.wire.jobs import VolumeCreate, request_for
from coordinator.fleet.forgetting import forget_finished
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.state import operations
from tests.unit.coordinator.operations.support import REQUESTER, Site, site


async def keys(here: Site) -> set[str]:
    client = here.hosts.client("host-a")
    assert client is not None
    return {job.key for job in await client.jobs()}


async def finished(here: Site) -> list[str]:
    client = here.hosts.client("host-a")
    assert client is not None
    return [job.key for job in await client.jobs() if job.terminal]


async def test_only_finished_jobs_of_ended_operations_are_dropped(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        client = here.hosts.client("host-a")
        assert client is not None
        new = NewVolume(size=1)
        ended, _ = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        await here.engine.wait(ended.id, 20)
        active, _ = await here.db.write(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        for operation in (ended.id, active.id, "unknown"):
            args = VolumeCreate(backend="files", volume_id=new_id(), size_bytes=4096)
            status = await client.post_job(request_for(f"{operation}/lost/1", 9, args), 5)
            assert status.state == "done"
        assert f"{ended.id}/lost/1" in await forget_finished(here.db, client, await finished(here))
        assert await keys(here) == {f"{active.id}/lost/1", "unknown/lost/1"}
        assert await forget_finished(here.db, client, await finished(here)) == []


async def test_the_row_names_every_job_that_was_given_out(tmp_path: Path) -> None:
    """So that a coordinator that took over acknowledges the jobs of the one before, too."""
    from coordinator.operations.advance import jobs_of

    async with site(tmp_path) as here:
        new = NewVolume(size=1)
        operation, _ = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
        await here.engine.wait(operation.id, 60)
        row = await here.db.read(lambda conn: operations.get(conn, operation.id))
        assert row is not None
        assert jobs_of(row) == [("host-a", f"{operation.id}/make/1")]
