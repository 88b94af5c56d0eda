"""A host that is given up: what is said before, what is asked for, and how everything that depended on it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from agent.base.errors import NotFound
from agent.base.ids import new_id
from coordinator.operations import evict_host
from coordinator.operations.create_snapshot import NewSnapshot, accept_snapshot
from coordinator.operations.delete_snapshot import accept_snapshot_delete
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.evict_host import Evidence, EvidenceNeeded, HostAnswers
from coordinator.operations.extend_volume import accept_extend
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.state import attachments, enrolment, evictions, fleet, issues, volumes
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.transition import enter, move
from tests.unit.coordinator.api.test_volume_exports import Table
from tests.unit.coordinator.operations.support import REQUESTER, Hosts, Site, new_engine, site
from tests.unit.coordinator.operations.test_volume_workflows import create, ended

PROOF = Evidence("fence", "ipmi: chassis power is off")


@dataclass
class Silent(Hosts):
    """One host is away and is waited for, until it is evicted."""

    evicted: asyncio.Event = field(default_factory=asyncio.Event)

    async def reachable(self, host_id: str, timeout: float) -> bool:
        if host_id in self.away:
            await asyncio.wait([asyncio.ensure_future(self.evicted.wait())], timeout=timeout)
            return False
        return True


async def evict(
    here: Site, host_id: str, evidence: Evidence | None = PROOF, *, answers: bool = False
) -> list[Operation]:
    def act(conn: Connection) -> Any:
        return evict_host.evict(conn, REQUESTER, host_id, evidence, answers=answers)

    _, begun = await here.db.write(act)
    here.hosts.wires.pop(host_id, None)
    for operation in begun:
        here.engine.start(operation)
    for operation in begun:
        await ended(here, operation)
    return begun


def attached(conn: Connection, volume_id: str, host_id: str, transport: str | None) -> str:
    move(conn, "volume", volume_id, "host_attach")
    row = enter(
        conn, "attachment", "host_attach", id=new_id(), volume_id=volume_id, project_id="p1", owner="agent",
        host_id=host_id, attached_host=host_id, transport=transport, initiator="iqn.2026-01.org.x:b",
    )  # fmt: skip
    move(conn, "attachment", row.id, "host_attached", attach_time=utcnow())
    move(conn, "volume", volume_id, "attachment_complete", attach_status="attached")
    return str(row.id)


async def test_nothing_is_given_up_without_a_word(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        parts = await here.db.read(lambda conn: evict_host.look(conn, "host-a"))
        assert [(part.what, part.ids) for part in parts] == [("volumes", (row.id,))]
        with pytest.raises(EvidenceNeeded):
            await evict(here, "host-a", None)
        with pytest.raises(HostAnswers):
            await evict(here, "host-a", answers=True)
        with pytest.raises(NotFound):
            await evict(here, "moon")
        assert (await here.db.read(lambda conn: volumes.get(conn, row.id))).status == "available"
        assert await here.db.read(lambda conn: fleet.get(conn, "host-a"))


async def test_a_host_on_which_nothing_depends_needs_no_evidence(tmp_path: Path) -> None:
    async with site(tmp_path, ("host-a", "host-b")) as here:
        await evict(here, "host-b", None, answers=True)
        with pytest.raises(NotFound):
            await here.db.read(lambda conn: fleet.get(conn, "host-b"))
        assert await here.db.read(lambda conn: conn.execute(select(pools.c.host_id)).scalars().all()) == ["host-a"]
        assert await here.db.read(issues.listing) == []


async def test_what_lay_there_is_marked_and_can_be_deleted_until_nothing_is_left(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        new = NewSnapshot(volume_id=row.id)
        operation, snapshot = await here.engine.submit(lambda conn: accept_snapshot(conn, REQUESTER, here.keys, new))
        await ended(here, operation)
        await evict(here, "host-a")
        kept = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (kept.status, kept.attention) == ("error", "Host host-a, which it lies on, was evicted.")
        status = select(snapshots.c.status).where(snapshots.c.id == snapshot.id)
        assert await here.db.read(lambda conn: conn.execute(status).scalar_one()) == "error"
        (issue,) = await here.db.read(issues.listing)
        assert (issue.code, issue.details["volumes"]) == ("host.evicted", [row.id])
        assert "1 volumes, 1 snapshots" in issue.sentence
        assert await evict(here, "host-a", None) == []
        for accept, gone in ((accept_snapshot_delete, snapshot.id), (accept_delete, row.id)):
            operation, _ = await here.engine.submit(
                lambda conn, accept=accept, gone=gone: (accept(conn, REQUESTER, gone), None)
            )
            assert (await ended(here, operation)).state == "done"
        await here.db.write(evict_host.follow)
        assert await here.db.read(issues.listing) == []
        (record,) = await here.db.read(evictions.standing)
        assert (record.user_id, record.evidence, record.words) == ("u1", "fence", PROOF.words)
        assert record.counts == {"volumes": 1, "snapshots": 1}


async def test_work_that_waits_for_it_ends_truthfully(tmp_path: Path) -> None:
    async with site(tmp_path, ("host-a", "host-b")) as here:
        rows = [await create(here) for _ in range(3)]
        name = next(row.host_id for row in rows if sum(each.host_id == row.host_id for each in rows) > 1)
        lost = [row for row in rows if row.host_id == name]
        silent = Silent({**here.hosts.wires}, {name})
        engine = new_engine(here.db, silent, here.keys, owner="c1", away_deadline_s=60)
        here.engine, here.hosts, first = engine, silent, here.engine
        silent.wires[name].lose_requests = 1000
        deleting, _ = await engine.submit(lambda conn: (accept_delete(conn, REQUESTER, lost[0].id), None))
        growing, _ = await engine.submit(
            lambda conn: (accept_extend(conn, REQUESTER, lost[1].id, 2, attached=False), None)
        )
        async with asyncio.timeout(60):
            while len([row for row in await here.db.read(issues.listing) if row.code == "operation.waiting"]) < 2:
                await asyncio.sleep(0.02)
        parts = {part.what: part.ids for part in await here.db.read(lambda conn: evict_host.look(conn, name))}
        assert parts["operations"] == tuple(sorted((deleting.id, growing.id)))
        await evict(here, name)
        silent.evicted.set()
        assert (await ended(here, deleting)).state == "done"
        grown = await ended(here, growing)
        assert (grown.state, grown.error["code"]) == ("failed", "operation.unknown-host")
        left = await here.db.read(lambda conn: volumes.get(conn, lost[1].id))
        assert (left.status, left.size) == ("error_extending", 1)
        await engine.close(0.2)
        here.engine = first


async def test_volumes_of_other_hosts_are_free_again(tmp_path: Path) -> None:
    table = Table()
    async with site(tmp_path, ("host-a", "host-b"), {"iscsi": table}) as here:
        row = await create(here)
        consumer = "host-b" if row.host_id == "host-a" else "host-a"
        mine = await here.db.write(lambda conn: attached(conn, row.id, consumer, "iscsi"))
        local = await create(here)
        while local.host_id != consumer:
            local = await create(here)
        there = await here.db.write(lambda conn: attached(conn, local.id, consumer, None))
        begun = await evict(here, consumer)
        assert {operation.args["attachment_id"] for operation in begun} == {mine, there}
        free = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (free.status, free.attach_status) == ("available", "detached")
        assert table.users(row.id) == set()
        assert await here.db.read(lambda conn: attachments.of_volume(conn, row.id)) == []
        await here.db.write(evict_host.follow)
        assert (await here.db.read(lambda conn: volumes.get(conn, local.id))).status == "error"


async def test_consumers_elsewhere_keep_what_they_have_until_they_detach(tmp_path: Path) -> None:
    async with site(tmp_path, ("host-a", "host-b"), {"iscsi": Table()}) as here:
        row = await create(here)
        consumer = "host-b" if row.host_id == "host-a" else "host-a"
        mine = await here.db.write(lambda conn: attached(conn, row.id, consumer, "iscsi"))
        await evict(here, row.host_id)
        kept = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (kept.status, kept.attention is not None) == ("in-use", True)
        (issue,) = await here.db.read(issues.listing)
        assert issue.details["attachments of its volumes elsewhere"] == [mine]


async def test_a_host_that_is_enrolled_again_is_as_new(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here)
        await evict(here, "host-a")

        def back(conn: Connection) -> None:
            enrolment.put_host(conn, EnrolledHost("host-a", "127.0.0.1", 1, 2, "1" * 64, utcnow()))
            fleet.ensure_hosts(conn)
            evict_host.follow(conn)

        await here.db.write(back)
        assert await here.db.read(evictions.standing) == []
        assert await here.db.read(issues.listing) == []
        assert (await here.db.read(lambda conn: volumes.get(conn, row.id))).status == "error"
        found = await here.db.read(lambda conn: conn.execute(select(hosts.c.id)).scalars().all())
        assert found == ["host-a"]


async def test_a_create_under_way_there_fails_and_leaves_nothing_stuck(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        silent = Silent({**here.hosts.wires}, {"host-a"})
        engine = new_engine(here.db, silent, here.keys, owner="c1", away_deadline_s=60)
        here.engine, here.hosts, first = engine, silent, here.engine
        silent.wires["host-a"].lose_answers = 1000
        making, row = await engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, NewVolume(size=1)))
        async with asyncio.timeout(60):
            while "operation.waiting" not in {row.code for row in await here.db.read(issues.listing)}:
                await asyncio.sleep(0.02)
        await evict(here, "host-a")
        silent.evicted.set()
        made = await ended(here, making)
        assert (made.state, made.error["code"]) == ("failed", "operation.unknown-host")
        assert (await here.db.read(lambda conn: volumes.get(conn, row.id))).status == "error"
        await engine.close(0.2)
        here.engine = first
