"""Polling goes on whatever happens, says only what is so, and wakes those who wait for a host that moved or is gone."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from agent.base.errors import Permanent
from agent.base.ids import new_id
from agent.server.errors import NoSuchRoute
from agent.wire.client import AgentClient
from agent.wire.errors import PeerTooOld, Undelivered
from agent.wire.jobs import VolumeDelete, request_for
from agent.wire.results import HostFacts, Pool, Report
from coordinator.enrolment.authority import FileCaStore
from coordinator.enrolment.ca import Authority
from coordinator.enrolment.own import own_identity
from coordinator.enrolment.renewal import Renewal
from coordinator.enrolment.service import Enrolment
from coordinator.fleet import poller as poller_module
from coordinator.fleet.directory import Directory, Known
from coordinator.fleet.poller import Poller
from coordinator.fleet.reconciler import Reconciler
from coordinator.state import enrolment, issues
from coordinator.state import fleet as state
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.errors import DatabaseUnavailable
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.tables.volumes import volumes
from coordinator.state.transition import enter, move
from tests.support import databases


class BackEndBroken(Permanent):
    code = "test.broken"
    sentence = "The back end is broken."


class HostWire:
    """What a host answers to a poll; `old` is one of the release before, which has no report."""

    def __init__(self) -> None:
        self.old = False
        self.free = 1 << 40
        self.held = "nothing"
        self.told: list[tuple[bool, bool]] = []
        self.compared = 0
        self.offset = 0.0
        self.asked = 0
        self.away = False
        self.broken = False
        self.version = "v"
        self.meanwhile: Callable[[], None] | None = None

    async def call(self, method: str, path: str, *, query: Any = None, **_: Any) -> Any:
        if self.away:
            raise Undelivered(peer="host:h", address="test", reason="no route")
        clock = time.time() + self.offset
        facts = HostFacts(host="h", boot_id="b", arch="x", kernel="k", version=self.version, started_at="", clock=clock)
        pool = Pool(backend="files", name="files", driver="file", total_bytes=1 << 40, free_bytes=self.free,
                    allocated_bytes=0)  # fmt: skip
        if path == "/v1/report":
            if self.old:
                raise NoSuchRoute(noun="call", id=path, method=method, path=path)
            self.asked += 1
            known = str((query or {}).get("have", ".")).split(".")
            report = Report(
                clock=clock, have=f"1.{self.free}", host=facts if known[0] != "1" else None,
                pools=(pool,) if known[1] != str(self.free) else None, held="" if self.broken else self.held,
            )  # fmt: skip
            self.told.append((report.host is not None, report.pools is not None))
            return report.model_dump(mode="json")
        if path == "/v1/host":
            self.asked += 1
            return facts.model_dump(mode="json")
        if path == "/v1/pools":
            return {"pools": [pool.model_dump(mode="json")]}
        if path == "/v1/inventory":
            self.compared += 1
            if self.broken:
                raise BackEndBroken
            if self.meanwhile is not None:
                await asyncio.to_thread(self.meanwhile)
            return {"inventory": []}
        listed = path.removeprefix("/v1/")
        return {listed: []} if listed in {"attachments", "exports"} else {"jobs": []}

    async def rest(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Fleet:
    def __init__(self, db: Database, folder: Path) -> None:
        self.db, self.wire = db, HostWire()
        authority = Authority.open(FileCaStore(folder / "ca"))
        tls = own_identity(folder / "identity", authority)
        self.directory = Directory(tls)
        self.poller = Poller(db, self.directory, Reconciler(db), Renewal(Enrolment(authority, db), tls), 0.05)

    async def enrol(self, port: int = 1) -> None:
        host = EnrolledHost("h", "127.0.0.1", port, 2, "0" * 64, utcnow())
        await self.db.write(lambda conn: enrolment.put_host(conn, host))
        await self.db.write(state.ensure_hosts)

    async def watch(self) -> None:
        """Poll the host on this wire."""
        await self.enrol()
        await self.poller.enrolled()
        known = self.directory.get("h")
        assert known is not None
        known.client = AgentClient(self.wire, "h")

    async def known(self) -> Known:
        """The host, polled by nobody but the test."""
        await self.enrol()
        await self.directory.sync(await self.db.read(enrolment.hosts))
        known = self.directory.get("h")
        assert known is not None
        known.client = AgentClient(self.wire, "h")
        return known

    async def pool(self) -> Any:
        (row,) = await self.db.read(lambda conn: state.pools_of(conn, "h"))
        return row

    async def issues(self) -> set[str]:
        return {row.code for row in await self.db.read(issues.listing)}

    async def until(self, true: Callable[[], bool], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.01)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    db = databases.fresh(tmp_path / "state.db")
    made = Fleet(db, tmp_path)
    yield made
    await made.poller.close()
    await made.directory.close()
    db.close()


async def test_a_database_that_fails_for_a_while_ends_no_polling(fleet: Fleet) -> None:
    write, broken = fleet.db.write, 4

    async def failing(fn: Any, **more: Any) -> Any:
        nonlocal broken
        if broken > 0:
            broken -= 1
            raise DatabaseUnavailable(reason="database or disk is full")
        return await write(fn, **more)

    await fleet.watch()
    fleet.db.write = failing  # type: ignore[method-assign]
    assert await fleet.directory.reachable("h", 5.0)
    assert broken == 0
    await fleet.until(lambda: fleet.wire.asked > 6)
    assert await fleet.issues() == set()


async def test_an_answer_with_a_defect_ends_no_polling(fleet: Fleet) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    fleet.wire.meanwhile = defect
    await fleet.watch()
    await fleet.until(lambda: fleet.wire.asked > 2)


async def test_a_host_that_answers_is_not_called_silent(fleet: Fleet) -> None:
    fleet.wire.broken = True
    await fleet.watch()
    await fleet.until(lambda: fleet.wire.asked > 2)
    assert await fleet.issues() == {"host.not-compared"}
    assert await fleet.directory.reachable("h", 0.5)
    fleet.wire.broken = False
    asked = fleet.wire.asked
    await fleet.until(lambda: fleet.wire.asked > asked + 2)
    assert await fleet.issues() == set()


@pytest.mark.parametrize("offset", [90.0, -90.0])
async def test_a_clock_that_differs_is_an_issue(fleet: Fleet, offset: float) -> None:
    fleet.wire.offset = offset
    await fleet.watch()
    await fleet.until(lambda: fleet.wire.asked > 2)
    (row,) = await fleet.db.read(issues.listing)
    assert (row.code, row.resource_id, row.host_id) == ("host.clock-skew", "h", "h")
    assert f"90 s {'ahead' if offset > 0 else 'behind'}" in row.sentence
    assert "timedatectl" in row.remedy
    fleet.wire.offset = 1.0
    asked = fleet.wire.asked
    await fleet.until(lambda: fleet.wire.asked > asked + 2)
    assert await fleet.issues() == set()


async def test_who_waits_for_a_host_follows_it_to_its_new_address(fleet: Fleet) -> None:
    await fleet.enrol()
    await fleet.directory.sync(await fleet.db.read(enrolment.hosts))
    waiting = asyncio.create_task(fleet.directory.reachable("h", 5.0))
    await asyncio.sleep(0.01)
    await fleet.enrol(port=3)
    await fleet.directory.sync(await fleet.db.read(enrolment.hosts))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    known = fleet.directory.get("h")
    assert known is not None
    fleet.directory.found(known)
    assert await waiting


async def test_who_waits_for_a_host_hears_when_it_is_evicted(fleet: Fleet) -> None:
    await fleet.enrol()
    await fleet.directory.sync(await fleet.db.read(enrolment.hosts))
    waiting = asyncio.create_task(fleet.directory.reachable("h", 30.0))
    await asyncio.sleep(0.01)
    await fleet.directory.sync([])
    assert not await asyncio.wait_for(waiting, 1.0)


async def test_what_changes_while_the_host_is_asked_is_no_difference(fleet: Fleet) -> None:
    """A volume made after the back end was listed is not in that list, and nothing is wrong."""
    before: list[set[str]] = []

    def make(conn: Connection) -> None:
        values = {"id": new_id(), "project_id": "p", "user_id": "u", "size": 1, "host_id": "h", "backend": "files"}
        row = enter(conn, "volume", "create", **values)
        move(conn, "volume", row.id, "created", device_bytes=1 << 30)

    def meanwhile() -> None:
        fleet.db.write_now(make)
        before.append({row.code for row in fleet.db.read_now(issues.listing)})
        fleet.wire.meanwhile = None

    fleet.wire.meanwhile = meanwhile
    known = await fleet.known()
    await fleet.poller.poll(known)
    assert before == [set()]
    assert await fleet.issues() == set()
    await fleet.poller.poll(known)
    assert await fleet.issues() == {"volume.missing-data"}


async def test_a_host_of_the_release_before_is_asked_in_parts(fleet: Fleet) -> None:
    fleet.wire.old = True
    await fleet.watch()
    assert await fleet.directory.reachable("h", 5.0)
    await fleet.until(lambda: fleet.wire.asked > 2)
    row = await fleet.pool()
    assert (row.id, row.present) == ("h@files#files", True)
    assert fleet.wire.compared >= 2


async def test_what_has_not_changed_is_neither_told_nor_written_nor_compared(fleet: Fleet) -> None:
    known = await fleet.known()
    for _ in range(6):
        await fleet.poller.poll(known)
    assert fleet.wire.told == [(True, True)] + 5 * [(False, False)]
    assert fleet.wire.compared == 1
    before = await fleet.pool()
    fleet.wire.free -= 1
    await fleet.poller.poll(known)
    after = await fleet.pool()
    assert fleet.wire.told[-1] == (False, True)
    assert (after.free_bytes, before.free_bytes - after.free_bytes) == (fleet.wire.free, 1)
    assert after.updated_at > before.updated_at
    fleet.wire.held = "something else"
    await fleet.poller.poll(known)
    assert fleet.wire.compared == 2


async def test_every_twentieth_poll_is_whole_and_writes_only_what_differs(fleet: Fleet) -> None:
    """Rows change too: a pool's sum that went wrong is made right though the host has nothing new to tell."""
    known = await fleet.known()
    await fleet.poller.poll(known)
    before = await fleet.pool()
    await fleet.db.write(lambda conn: conn.execute(update(pools).values(provisioned_bytes=5)) and None)
    for _ in range(19):
        await fleet.poller.poll(known)
    assert (await fleet.pool()).provisioned_bytes == 5
    await fleet.poller.poll(known)
    assert fleet.wire.told[-1] == (True, True)
    assert fleet.wire.compared == 2
    assert (await fleet.pool()).provisioned_bytes == 0
    right = (await fleet.pool()).updated_at
    assert right > before.updated_at
    for _ in range(20):
        await fleet.poller.poll(known)
    assert fleet.wire.told[-1] == (True, True)
    assert (await fleet.pool()).updated_at == right


async def test_a_difference_is_looked_at_again_with_each_poll_until_it_is_gone(fleet: Fleet) -> None:
    known = await fleet.known()

    def make(conn: Connection) -> None:
        values = {"id": new_id(), "project_id": "p", "user_id": "u", "size": 1, "host_id": "h", "backend": "files"}
        row = enter(conn, "volume", "create", **values)
        move(conn, "volume", row.id, "created", device_bytes=1 << 30)

    await fleet.db.write(make)
    await fleet.poller.poll(known)
    assert await fleet.issues() == {"volume.missing-data"}
    await fleet.db.write(lambda conn: conn.execute(update(volumes).values(deleted=True)) and None)
    await fleet.poller.poll(known)
    assert await fleet.issues() == set()
    assert fleet.wire.compared == 2


async def test_that_a_host_answered_is_written_in_time(fleet: Fleet) -> None:
    await fleet.watch()
    assert await fleet.directory.reachable("h", 5.0)
    first = (await fleet.db.read(lambda conn: state.get(conn, "h"))).last_seen

    def newer() -> bool:
        return bool(fleet.db.read_now(lambda conn: state.get(conn, "h")).last_seen > first)

    await fleet.until(newer)


async def test_a_host_that_went_away_and_came_back(fleet: Fleet) -> None:
    await fleet.watch()
    assert await fleet.directory.reachable("h", 5.0)
    fleet.wire.away = True
    known = fleet.directory.get("h")
    assert known is not None
    await fleet.until(lambda: known.failures > 1)
    assert not known.up
    assert await fleet.issues() == {"host.unreachable"}
    assert await fleet.db.read(state.silent) == {"h"}
    fleet.wire.away = False
    assert await fleet.directory.reachable("h", 10.0)
    await fleet.until(lambda: known.failures == 0)
    assert await fleet.issues() == set()
    assert await fleet.db.read(state.silent) == set()


async def test_an_agent_that_is_too_old_gets_no_work_until_it_was_upgraded(fleet: Fleet) -> None:
    known = await fleet.known()
    fleet.wire.version = "0.0.9"
    with pytest.raises(PeerTooOld, match=r"host h is of release 0\.0\.9, which is too old: 0\.1 and newer") as refused:
        await fleet.poller.poll(known)
    await fleet.poller._visitor.down(known, refused.value)
    assert not known.up
    (issue,) = await fleet.db.read(issues.listing)
    assert issue.sentence == str(refused.value)
    with pytest.raises(PeerTooOld):
        await known.client.post_job(request_for("op/make/1", 1, VolumeDelete(backend="files", volume_id=new_id())))
    for version in ("0.1.0", "0.2.0", "1.0", "unknown"):
        fleet.wire.version = version
        known.have = ""
        await fleet.poller.poll(known)
        assert known.up
        assert known.client.refusal is None
    assert await fleet.issues() == set()


async def test_hosts_of_a_coordinator_that_died_are_polled_when_it_would_have_done_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a large site: those that were due meanwhile come first, the oldest of all before the others."""
    monkeypatch.setattr(poller_module, "_KEPT_CONNECTIONS", 2)
    db = databases.fresh(tmp_path / "db")
    fleet = Fleet(db, tmp_path)
    poller, directory = fleet.poller, fleet.directory
    poller._interval_s = 3000.0
    ago = {"h1": 100.0, "h2": 2999.0, "h3": 3100.0, "h4": 5000.0, "clock-ahead": -60.0, "silent": 10.0, "new": None}

    def enter_all(conn: Connection) -> None:
        for name in ago:
            enrolment.put_host(conn, EnrolledHost(name, "127.0.0.1", 1, 2, "0" * 64, utcnow()))
        state.ensure_hosts(conn)
        for name, seconds in ago.items():
            seen = None if seconds is None else utcnow() - datetime.timedelta(seconds=seconds)
            values = {"last_seen": seen, "reachable": name not in {"silent", "new"}}
            conn.execute(update(hosts).where(hosts.c.id == name).values(values))

    try:
        await db.write(enter_all)
        await directory.sync(await db.read(enrolment.hosts))
        for known in directory.all():
            known.mine = False
        poller._shares_moved()
        assert poller._taking is not None
        await poller._taking
        now = time.monotonic()
        due = {name: when - now for name, when in poller._table._due.items()}
        expected = {"h1": 2900, "h2": 1, "h3": -100, "h4": -2000, "clock-ahead": 3000, "silent": 0, "new": 0}
        assert due == pytest.approx(expected, abs=60)
        assert (await poller._table.next())[0] == "h4"
        assert {known.mine for known in directory.all()} == {True}
    finally:
        await poller.close()
        await asyncio.to_thread(db.close)
