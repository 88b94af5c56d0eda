"""Two hosts that serve one folder: volumes are spread, and when one host is silent the other does its work, alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select

from agent.wire.results import Pool
from coordinator.operations.create_snapshot import NewSnapshot, accept_snapshot
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.extend_volume import accept_extend
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.quota import limits
from coordinator.state import clusters, fleet, operations, volumes
from coordinator.state.tables.fleet import pools
from coordinator.state.tables.volumes import volumes as table
from tests.unit.coordinator.operations.support import REQUESTER, Site, new_engine, report_pools, site
from tests.unit.coordinator.operations.test_evict_host import PROOF, Silent, attached, evict
from tests.unit.coordinator.operations.test_volume_workflows import create, ended

NAMES = ("host-a", "host-b")
GIB = 1 << 30


def other(name: str) -> str:
    return next(host for host in NAMES if host != name)


async def volume_of(here: Site, row: Row[Any]) -> Row[Any]:
    return await here.db.read(lambda conn: volumes.get(conn, row.id))


async def down(here: Site, name: str) -> None:
    await here.db.write(lambda conn: fleet.set_reachable(conn, name, reachable=False))


async def promised(here: Site) -> set[int]:
    return set(await here.db.read(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalars().all()))


async def silent_engine(here: Site, name: str, **options: Any) -> Any:
    """The engine's own, with one host that does not answer; leases of a moment."""
    silent = Silent({**here.hosts.wires}, {name})
    made = new_engine(here.db, silent, here.keys, **{"away_deadline_s": 60, "member_lease_s": 0.4, **options})
    await here.engine.close(0.2)
    here.engine, here.hosts = made, silent
    await made.begin()
    return silent


async def test_volumes_are_spread_and_all_claims_are_one(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES, cluster="c1") as here:
        rows = [await create(here) for _ in range(10)]
        assert set(Counter(row.host_id for row in rows)) == set(NAMES)
        assert {row.cluster_name for row in rows} == {"c1@files"}
        assert {row.pool_id for row in rows} == {f"{name}@files#files" for name in NAMES}
        assert len(list((tmp_path / "shared" / "volumes").iterdir())) == 10
        assert await promised(here) == {10 * GIB}
        operation, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, rows[0].id), None))
        await ended(here, operation)
        assert await promised(here) == {9 * GIB}
        for name in NAMES:
            await report_pools(here.db, name, here.hosts.wires[name].backend)
        assert await promised(here) == {9 * GIB}
        (one,) = await here.db.read(clusters.listing)
        assert (one.name, one.members, one.down, one.is_up) == ("c1@files", 2, 0, True)


async def test_idle_volumes_are_served_by_who_is_left(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES, cluster="c1") as here:
        rows = [await create(here) for _ in range(8)]
        kept = await here.db.write(lambda conn: attached(conn, rows[0].id, rows[0].host_id, None))
        dead = rows[0].host_id
        await down(here, dead)
        moved = await here.db.write(clusters.spread_idle)
        assert moved == len([row for row in rows if row.host_id == dead]) - 1
        assert kept
        assert (await volume_of(here, rows[0])).host_id == dead
        for row in rows[1:]:
            assert (await volume_of(here, row)).host_id == other(dead)
            operation, _ = await here.engine.submit(
                lambda conn, row=row: (accept_delete(conn, REQUESTER, row.id), None)
            )
            assert (await ended(here, operation)).state == "done"
        assert [path.name for path in (tmp_path / "shared" / "volumes").iterdir()] == [rows[0].id]
        assert len(here.hosts.wires[dead].posted) == len([row for row in rows if row.host_id == dead])
        (one,) = await here.db.read(clusters.listing)
        assert (one.members, one.down, one.is_up) == (2, 1, True)


async def test_work_under_way_goes_on_elsewhere_when_its_host_must_have_given_it_up(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES, cluster="c1") as here:
        row = await create(here)
        silent = await silent_engine(here, row.host_id)
        silent.wires[row.host_id].lose_answers = 1
        operation, _ = await here.engine.submit(
            lambda conn: (accept_extend(conn, REQUESTER, row.id, 2, attached=False), None)
        )
        await down(here, row.host_id)
        assert (await ended(here, operation)).state == "done"
        there = silent.wires[other(row.host_id)].posted
        assert [request.key for request in there] == [f"{operation.id}/grow/2"]
        assert all(request.lease_s == 0.4 and request.sent_at for request in there)
        found = await volume_of(here, row)
        assert (found.host_id, found.status, found.size) == (other(row.host_id), "available", 2)
        assert (tmp_path / "shared" / "volumes" / row.id).stat().st_size == 2 * GIB


async def test_what_was_never_delivered_is_done_by_another_at_once(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES, cluster="c1", member_lease_s=600) as here:
        row = await create(here)
        here.hosts.wires[row.host_id].lose_requests = 1000
        new = NewSnapshot(volume_id=row.id)
        operation, _ = await here.engine.submit(lambda conn: accept_snapshot(conn, REQUESTER, here.keys, new))
        assert (await ended(here, operation)).state == "done"
        assert (await volume_of(here, row)).host_id == other(row.host_id)
        assert len(list((tmp_path / "shared" / "snapshots").iterdir())) == 1


async def test_where_nobody_is_left_the_host_is_waited_for(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES, cluster="c1") as here:
        row = await create(here)
        silent = await silent_engine(here, row.host_id)
        await down(here, other(row.host_id))
        silent.wires[row.host_id].lose_answers = 1000
        operation, _ = await here.engine.submit(
            lambda conn: (accept_extend(conn, REQUESTER, row.id, 2, attached=False), None)
        )
        assert await here.engine.wait(operation.id, 3) is None
        waiting = await here.db.read(lambda conn: operations.get(conn, operation.id))
        assert waiting is not None
        assert waiting.waiting is not None
        assert silent.wires[other(row.host_id)].posted == []
        silent.away.clear()
        silent.wires[row.host_id].lose_answers = 0
        silent.evicted.set()
        assert (await ended(here, operation)).state == "done"
        assert (await volume_of(here, row)).host_id == row.host_id


async def test_undoing_goes_on_elsewhere_too(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES, cluster="c1") as here:
        rows = [await create(here) for _ in range(3)]
        dead = rows[0].host_id
        silent = await silent_engine(here, dead)
        silent.wires[dead].lose_answers = 1
        new = NewVolume(size=1)
        makes = []
        # Which member gets a volume is a matter of its id: as many as it takes.
        await here.db.write(lambda conn: limits.put(conn, REQUESTER.project_id, {"volumes": -1}))
        async with asyncio.timeout(60):
            while not any(row.host_id == dead for _, row in makes):
                operation, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
                while True:
                    row = await volume_of(here, row)
                    if row.host_id is not None:
                        break
                    await asyncio.sleep(0.01)
                makes.append((operation, row))
        making, row = makes[-1]
        await down(here, dead)
        await here.engine.cancel(making.id)
        assert (await ended(here, making)).state == "cancelled"
        assert not (tmp_path / "shared" / "volumes" / row.id).exists()


async def test_an_evicted_hosts_work_goes_on_at_once(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES, cluster="c1") as here:
        row, more = await create(here), [await create(here) for _ in range(5)]
        dead = row.host_id
        silent = await silent_engine(here, dead, member_lease_s=600)
        silent.wires[dead].lose_answers = 1
        operation, _ = await here.engine.submit(
            lambda conn: (accept_extend(conn, REQUESTER, row.id, 2, attached=False), None)
        )
        async with asyncio.timeout(60):
            while (await here.db.read(lambda conn: operations.get(conn, operation.id))).waiting is None:
                await asyncio.sleep(0.01)
        await evict(here, dead, PROOF)
        silent.evicted.set()
        assert (await ended(here, operation)).state == "done"
        for one in (row, *more):
            found = await volume_of(here, one)
            assert (found.status, found.host_id) == ("available", other(dead))


async def test_an_attach_brings_an_idle_volume_to_its_host(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES, cluster="c1") as here:
        row = await create(here)
        await here.db.write(lambda conn: clusters.bring(conn, row.id, other(row.host_id)))
        assert (await volume_of(here, row)).host_id == other(row.host_id)
        await here.db.write(lambda conn: attached(conn, row.id, other(row.host_id), None))
        await here.db.write(lambda conn: clusters.bring(conn, row.id, row.host_id))
        assert (await volume_of(here, row)).host_id == other(row.host_id)


async def test_a_host_that_ran_alone_brings_its_volumes_into_the_cluster(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        backend = here.hosts.wires["host-a"].backend
        facts = await here.hosts.client("host-a").host()
        state = await backend.pool()
        told = {"backend": "files", "name": "files", "driver": "file", "total_bytes": state.total_bytes,
                "free_bytes": state.free_bytes, "allocated_bytes": 0}  # fmt: skip

        async def report(cluster: str | None) -> None:
            pool = Pool.model_validate({**told, "cluster_name": cluster})
            await here.db.write(lambda conn: fleet.report(conn, "host-a", facts, [pool]))

        await report("c1")
        assert (await volume_of(here, row)).cluster_name == "c1@files"
        # A host that changes its cluster takes no volumes along.
        await report("c2")
        assert (await volume_of(here, row)).cluster_name == "c1@files"


@pytest.mark.only("postgresql")
async def test_two_members_that_start_at_once_make_one_cluster(tmp_path: Path) -> None:
    async with site(tmp_path, NAMES) as here:
        facts = await here.hosts.client("host-a").host()
        pool = Pool(backend="files", name="files", driver="file", total_bytes=1 << 40, free_bytes=1 << 40,
                    allocated_bytes=0, cluster_name="c1")  # fmt: skip
        await asyncio.gather(
            *(here.db.write(lambda conn, name=name: fleet.report(conn, name, facts, [pool])) for name in NAMES)
        )
        (one,) = await here.db.read(clusters.listing)
        assert one.members == 2
        assert await here.db.read(lambda conn: conn.execute(select(table.c.id)).all()) == []
