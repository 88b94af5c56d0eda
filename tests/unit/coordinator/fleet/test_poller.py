"""Polling goes on whatever happens, says only what is so, and wakes those who wait for a host that moved or is gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, update

from agent.base.ids import new_id
from agent.wire.client import AgentClient
from agent.wire.errors import PeerTooOld
from agent.wire.jobs import VolumeDelete, request_for
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.request import Hints, Request
from coordinator.state import enrolment, issues
from coordinator.state import fleet as state
from coordinator.state.errors import DatabaseUnavailable
from coordinator.state.tables.fleet import pools
from coordinator.state.tables.volumes import volumes
from coordinator.state.transition import enter, move
from tests.unit.coordinator.fleet.polled import Fleet


async def test_shares_that_move_while_an_issue_is_noted_say_nothing_of_the_host(fleet: Fleet) -> None:
    known, visitor, write = await fleet.known(), fleet.poller._visitor, fleet.db.write

    async def moving(fn: Any, **more: Any) -> Any:
        visitor.forget()
        return await write(fn, **more)

    fleet.db.write = moving  # type: ignore[method-assign]
    fleet.wire.offset = 3600.0
    await visitor.poll(known)
    assert await fleet.issues() == {"host.clock-skew"}


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


async def test_a_host_that_is_enrolled_anew_is_given_the_denied_certificates_anew(fleet: Fleet) -> None:
    """Its agent may have been set up from nothing; and nothing is remembered of a host that is gone."""
    renewal, client = fleet.poller._renewal, AgentClient(fleet.wire, "h")
    await fleet.known()

    async def told() -> int:
        renewal._denied, before = ("abc",), len(fleet.wire.given)
        await renewal.give_denied("h", client)
        return len(fleet.wire.given) - before

    assert [await told(), await told()] == [1, 0]
    await fleet.enrol(port=7)
    await fleet.poller.enrolled()
    assert await told() == 1
    await fleet.db.write(lambda conn: enrolment.evict_host(conn, "h"))
    await fleet.poller.enrolled()
    assert not renewal._given


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
    waiting = asyncio.create_task(fleet.directory.reachable("h", 300.0))
    await asyncio.sleep(0.01)
    await fleet.directory.sync([])
    assert not await asyncio.wait_for(waiting, 60)


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


@pytest.mark.parametrize("old", [False, True])
async def test_a_pool_that_can_not_be_understood_spoils_no_other(fleet: Fleet, old: bool) -> None:
    """Nothing is placed there, and the host's issue says what is wrong, until it is told as it should be."""
    known, wire = await fleet.known(), fleet.wire
    wire.old = old
    good = {"backend": "b", "driver": "file", "total_bytes": 1 << 40, "free_bytes": 1 << 40, "allocated_bytes": 0}
    wire.more = [{**good, "name": name} for name in ("keyless", "endless", "double", "double", "good")]
    await fleet.poller.poll(known)
    del wire.more[0]["total_bytes"]
    wire.more[1]["free_bytes"] = "infinite"
    wire.more += [{"backend": 7}, "nonsense"]
    wire.free -= 1
    await fleet.poller.poll(known)
    present = {row.id: row.present for row in await fleet.db.read(lambda conn: state.pools_of(conn, "h"))}
    assert present == {"h@files#files": True, "h@b#good": True, "h@b#keyless": False, "h@b#endless": False}
    (row,) = await fleet.db.read(issues.listing)
    assert (row.code, row.details["pools"].keys()) == (
        "host.pools-unread", {"b#keyless", "b#endless", "b#double", "number 7", "number 8"},
    )  # fmt: skip
    assert "b#keyless (total_bytes: Field required)" in row.sentence
    assert row.details["pools"]["b#double"] == "is told more than once"
    asked = Request(1 << 30, hints=Hints(query='["in", "$pool_name", "keyless", "endless", "double", "good"]'))
    chosen = await fleet.db.write(lambda conn: Scheduler().place(conn, asked))
    assert chosen.pool_id == "h@b#good"
    wire.more, wire.free = [{**good, "name": "keyless"}], wire.free - 1
    await fleet.poller.poll(known)
    assert await fleet.issues() == set()
    assert next(row.present for row in await fleet.db.read(state.pools_of) if "keyless" in row.id)


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


async def test_what_a_host_finds_wrong_is_an_issue_of_the_site_until_it_is_right(fleet: Fleet) -> None:
    known, attachment = await fleet.known(), new_id()
    about = {"message": "A path is away.", "remedy": "Look at it.", "since": "2026-01-01T00:00:00+00:00"}
    await fleet.poller.poll(known)
    assert fleet.wire.compared == 1
    fleet.wire.issues = [
        {"code": "attachment.path", "resource": attachment, **about},
        {"code": "config.refused", "resource": "agent", **about},
        {"code": "lvm.group-missing", "resource": "thin", **about},
        {"code": "job.needs-secret", "resource": f"{attachment}/attach/1", **about},
        {"code": "backend.away", "resource": "files", **about},
    ]
    fleet.wire.held = "something else"
    await fleet.poller.poll(known)
    rows = await fleet.db.read(issues.listing)
    assert {(row.code, row.resource_type, row.resource_id) for row in rows} == {
        ("attachment.path", "attachment", attachment), ("config.refused", "host", "h"),
        ("lvm.group-missing", "host", "h@thin"), ("job.needs-secret", "operation", attachment),
    }  # fmt: skip
    assert {(row.sentence, row.remedy, row.host_id) for row in rows} == {
        ("Host h: A path is away.", "Look at it.", "h")
    }
    fleet.wire.issues = fleet.wire.issues[1:2]
    await fleet.poller.poll(known)  # what is open is looked at again with each poll
    assert await fleet.issues() == {"config.refused"}
    fleet.wire.issues = []
    await fleet.poller.poll(known)
    assert await fleet.issues() == set()
    compared = fleet.wire.compared
    await fleet.poller.poll(known)
    assert fleet.wire.compared == compared


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
