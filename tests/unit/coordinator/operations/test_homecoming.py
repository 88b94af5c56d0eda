"""What may be taken from a host that came back, and what not: the evidence for each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, update

from agent.base.ids import new_id
from agent.wire.jobs import ExportApply, Generation, WantedExport, WireSecret, request_for
from agent.wire.results import HostExport
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.homecoming import Homecoming
from coordinator.operations.returned_host import Told, accept_clearing
from coordinator.state import attachments, enrolment, evictions, fleet, issues
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.operations import operations
from coordinator.state.tables.volumes import volumes as volume_table
from coordinator.state.transition import move
from tests.unit.coordinator.api.test_volume_exports import Table
from tests.unit.coordinator.operations.support import REQUESTER, Site, site
from tests.unit.coordinator.operations.test_evict_host import attached, evict
from tests.unit.coordinator.operations.test_volume_workflows import create, ended


class Quiet:
    async def changed(self) -> None:
        await asyncio.sleep(60)


async def back(here: Site, host_id: str, wire: Any) -> None:
    """Enrolled again under its name, and looked at until nothing is being taken any more."""
    home = await enrolled_again(here, host_id, wire)
    async with asyncio.timeout(60):
        while await home.look():
            await asyncio.sleep(0.05)


async def enrolled_again(here: Site, host_id: str, wire: Any) -> Homecoming:
    def enrolled(conn: Connection) -> None:
        enrolment.put_host(conn, EnrolledHost(host_id, "127.0.0.1", 1, 2, "1" * 64, utcnow()))
        fleet.ensure_hosts(conn)

    await here.db.write(enrolled)
    here.hosts.wires[host_id] = wire
    return Homecoming(here.db, here.engine, Quiet(), lambda _: True)


async def deleted(here: Site, volume_id: str) -> None:
    operation, _ = await here.engine.submit(lambda conn: (accept_delete(conn, REQUESTER, volume_id), None))
    assert (await ended(here, operation)).state == "done"


def held(here: Site) -> set[str]:
    return {path.name.partition(".")[0] for path in (here.folders["host-a"] / "volumes" / "volumes").iterdir()}


async def cleared(here: Site) -> Any:
    row = await here.db.read(lambda conn: evictions.last_return(conn, "host-a"))
    assert row is not None
    return row


async def test_data_are_taken_only_where_a_deletion_is_written_down(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        asked, unsaid, shared, lives = [await create(here) for _ in range(4)]
        wire = here.hosts.wires["host-a"]
        await evict(here, "host-a")
        for row in (asked, unsaid, shared):
            await deleted(here, row.id)

        def changed(conn: Connection) -> None:
            conn.execute(delete(operations).where(operations.c.resource_id == unsaid.id))
            conn.execute(update(volume_table).where(volume_table.c.id == shared.id).values(cluster_name="c@files"))

        await here.db.write(changed)
        await back(here, "host-a", wire)
        assert held(here) == {unsaid.id, shared.id, lives.id}
        row = await cleared(here)
        assert (row.taken, row.cleared_at is not None) == ({"volumes": 1}, True)
        (issue,) = [one for one in await here.db.read(issues.listing) if one.code == "host.returned"]
        assert issue.details["damaged"] == 1
        assert "volume repair" in issue.remedy
        await deleted(here, lives.id)
        await back(here, "host-a", wire)
        assert [one for one in await here.db.read(issues.listing) if one.code == "host.returned"] == []


async def test_a_host_is_not_told_as_cleared_before_what_it_gave_up_is_counted(tmp_path: Path) -> None:
    """The agent has removed the data, and the coordinator was killed before it wrote that down."""
    async with site(tmp_path) as here:
        volume = await create(here)
        wire = here.hosts.wires["host-a"]
        await evict(here, "host-a")
        await deleted(here, volume.id)
        home = await enrolled_again(here, "host-a", wire)

        def looked(conn: Connection, told: Told) -> tuple[list[Operation], bool]:
            (eviction,) = evictions.to_clear(conn)
            return accept_clearing(conn, here.engine.owner, eviction, told, stopped=0, going=False)

        inventory, _ = await here.engine.agents.client("host-a").inventory()
        (begun,), busy = await here.db.write(lambda conn: looked(conn, Told(inventory, [], [])))
        assert busy
        assert await here.db.write(lambda conn: looked(conn, Told([], [], []))) == ([], True)
        assert (await cleared(here)).cleared_at is None
        here.engine.start(begun)
        async with asyncio.timeout(60):
            while await home.look():
                await asyncio.sleep(0.05)
        row = await cleared(here)
        assert (row.taken, row.cleared_at is not None) == ({"volumes": 1}, True)


async def test_a_volume_that_was_deleted_before_the_eviction_is_nobodys_business(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        wire = here.hosts.wires["host-a"]
        await deleted(here, row.id)
        (here.folders["host-a"] / "volumes" / "volumes" / f"{row.id}.raw").write_bytes(b"from a backup of the disk")
        await evict(here, "host-a")
        await back(here, "host-a", wire)
        assert row.id in held(here)
        assert (await cleared(here)).taken is None


async def test_consumers_that_left_meanwhile_lose_what_the_host_offers_and_others_keep_it(tmp_path: Path) -> None:
    table = Table()
    async with site(tmp_path, ("host-a",), {"iscsi": table}) as here:
        row, wire = await create(here), here.hosts.wires["host-a"]
        stays, left = new_id(), new_id()
        await here.db.write(lambda conn: attached(conn, row.id, "host-c", "iscsi"))
        (live,) = await here.db.read(lambda conn: attachments.of_volume(conn, row.id))
        stays = live.id
        left = await here.db.write(lambda conn: _second(conn, row))
        wanted = tuple(
            WantedExport(attachment_id=one, protocol="iscsi", initiator=f"iqn.2026-01.org.x:{one}", auth="chap")
            for one in (stays, left)
        )
        job = ExportApply(
            backend="files", volume_id=row.id, generation=Generation(incarnation=1, sequence=1), wanted=wanted
        )
        secrets = {f"chap.{one}": WireSecret.of("passphrase", b"secret") for one in (stays, left)}
        client = here.hosts.client("host-a")
        assert client is not None
        await here.db.write(lambda conn: attachments.next_generations(conn, row.id, "host-a", 1))
        assert (await client.post_job(request_for("by-hand/export/1", 1, job, secrets), 10)).state == "done"
        assert table.users(row.id) == {stays, left}
        await evict(here, "host-a")
        await here.db.write(lambda conn: move(conn, "attachment", left, "gone", detach_time=utcnow()))
        told = [
            HostExport(
                attachment_id=one, volume_id=row.id, backend="files", protocol="iscsi", initiator="iqn.2026-01.org.x:b",
                generation=Generation(incarnation=1, sequence=1),
            ).model_dump(mode="json")
            for one in (stays, left)
        ]  # fmt: skip
        wire.exported = told
        home = Homecoming(here.db, here.engine, Quiet(), lambda _: True)

        def enrolled(conn: Connection) -> None:
            enrolment.put_host(conn, EnrolledHost("host-a", "127.0.0.1", 1, 2, "1" * 64, utcnow()))
            fleet.ensure_hosts(conn)

        await here.db.write(enrolled)
        here.hosts.wires["host-a"] = wire
        assert await home.look()
        async with asyncio.timeout(60):
            while left in table.users(row.id):
                await asyncio.sleep(0.02)
        assert len(table.volumes[row.id]) == 1
        wire.exported = told[:1]
        await asyncio.sleep(0.1)
        await home.look()
        assert (await cleared(here)).taken == {"exports": 1}


def _second(conn: Connection, volume: Any) -> str:
    """Another attachment of a volume that has one."""
    from coordinator.state.transition import enter

    row = enter(
        conn, "attachment", "host_attach", id=new_id(), volume_id=volume.id, project_id="p1", owner="agent",
        host_id="host-d", attached_host="host-d", transport="iscsi", initiator="iqn.2026-01.org.x:d",
    )  # fmt: skip
    move(conn, "attachment", row.id, "host_attached", attach_time=utcnow())
    return str(row.id)
