"""Two coordinators' connections to one PostgreSQL: what one decides holds against the other; collisions run again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Connection, func, select, text, update

from agent.base.errors import BrickyardError
from agent.base.ids import new_id
from agent.wire.results import HostFacts, Pool
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations import reset_status
from coordinator.operations.accept import Requester
from coordinator.operations.create_snapshot import NewSnapshot, accept_snapshot
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.operations.settling import settle
from coordinator.quota import limits
from coordinator.quota.errors import VolumeLimit
from coordinator.scheduler.claims import claim, release
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.request import Request
from coordinator.state import attachments, enrolment, fleet, issues, operations, volumes
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.errors import DatabaseUnavailable, NotStorable
from coordinator.state.issues import Issue
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import issues as issue_rows
from coordinator.state.tables.operations import operations as operation_rows
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes as rows
from coordinator.state.transition import enter, move
from tests.support import databases, postgres

pytestmark = pytest.mark.only("postgresql")
REQUESTER = Requester("p", "u", "req-1", "me")
KEYS = KeyStore(Kek(b"k" * 32))
Pair = databases.Pair
_WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with databases.two(tmp_path / "db") as made:
        yield made


def volume(conn: Connection) -> str:
    row = enter(conn, "volume", "create", id=new_id(), project_id="p", user_id="u", size=1)
    move(conn, "volume", row.id, "created")
    return str(row.id)


async def test_exactly_the_limit_is_accepted(pair: Pair) -> None:
    await pair[0].write(lambda conn: limits.put(conn, "p", {"volumes": 5}))
    asked = [
        pair[n % 2].write(lambda conn: accept_volume(conn, REQUESTER, KEYS, NewVolume(size=1))) for n in range(40)
    ]  # fmt: skip
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 5
    assert sum(isinstance(outcome, VolumeLimit) for outcome in outcomes) == 35


async def test_a_volume_is_deleted_or_snapshotted_never_both(pair: Pair) -> None:
    wins = set()
    for number in range(12):
        volume_id = await pair[0].write(volume)
        wanted = NewSnapshot(volume_id=volume_id, name="s")
        both = [
            pair[number % 2].write(lambda conn, v=volume_id: accept_delete(conn, REQUESTER, v)),
            pair[1 - number % 2].write(lambda conn, w=wanted: accept_snapshot(conn, REQUESTER, KEYS, w)),
        ]
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        refused = [isinstance(outcome, BrickyardError) for outcome in outcomes]
        assert sorted(refused) == [False, True], outcomes
        wins.add(refused[0])
        live = select(func.count()).where(snapshots.c.volume_id == volume_id, ~snapshots.c.deleted)
        count = await pair[0].read(lambda conn, live=live: conn.execute(live).scalar_one())
        status = (await pair[0].read(lambda conn, v=volume_id: volumes.get(conn, v))).status
        assert (status, count) in {("deleting", 0), ("available", 1)}


@pytest.mark.parametrize("other", ["an extend ends", "another attachment ends"])
async def test_the_last_one_to_leave_a_volume_frees_it_whoever_is_at_it_too(pair: Pair, other: str) -> None:
    settled, go = threading.Event(), threading.Event()

    def attachment(conn: Connection, volume_id: str) -> str:
        made = {"id": new_id(), "volume_id": volume_id, "project_id": "p", "owner": "external"}
        return str(enter(conn, "attachment", "attach_now", **made).id)

    def used(conn: Connection) -> tuple[str, list[str]]:
        volume_id = volume(conn)
        move(conn, "volume", volume_id, "attach")
        if other == "an extend ends":
            move(conn, "volume", volume_id, "extend_attached", reserved_size=1)
        return volume_id, [attachment(conn, volume_id) for _ in range(1 if other == "an extend ends" else 2)]

    volume_id, held = await pair[0].write(used)

    def ended(conn: Connection, attachment_id: str) -> None:
        move(conn, "attachment", attachment_id, "gone")
        settle(conn, volume_id)

    def first(conn: Connection) -> None:
        ended(conn, held[0])
        settled.set()
        assert go.wait(60)

    def second(conn: Connection) -> None:
        if other == "an extend ends":
            move(conn, "volume", volume_id, "extended", reserved_size=0)
            settle(conn, volume_id)
        else:
            ended(conn, held[1])

    one = asyncio.create_task(pair[0].write(first))
    await asyncio.to_thread(settled.wait, 60)
    two = asyncio.create_task(pair[1].write(second))
    while not two.done() and not await pair[0].read(lambda conn: conn.execute(_WAITING).scalar_one()):
        await asyncio.sleep(0.01)
    go.set()
    await asyncio.gather(one, two)
    assert (await pair[0].read(lambda conn: volumes.get(conn, volume_id))).status == "available"


async def test_a_reset_to_in_use_holds_the_volume_before_it_looks_at_attachments(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, go = threading.Event(), threading.Event()

    def used(conn: Connection) -> tuple[str, str]:
        volume_id = volume(conn)
        move(conn, "volume", volume_id, "attach")
        move(conn, "volume", volume_id, "extend_attached", reserved_size=1)
        move(conn, "volume", volume_id, "extend_failed", reserved_size=0)
        made = {"id": new_id(), "volume_id": volume_id, "project_id": "p", "owner": "external"}
        return volume_id, str(enter(conn, "attachment", "attach_now", **made).id)

    def slowly(conn: Connection, volume_id: str) -> object:
        found = attachments.of_volume(conn, volume_id)
        looked.set()
        assert go.wait(60)
        return found

    def ends(conn: Connection) -> None:
        move(conn, "attachment", attachment_id, "gone")
        settle(conn, volume_id)

    volume_id, attachment_id = await pair[0].write(used)
    monkeypatch.setattr(reset_status, "attachments", SimpleNamespace(of_volume=slowly))
    wanted = reset_status.Reset(status="in-use")
    one = asyncio.create_task(pair[0].write(lambda conn: reset_status.reset_volume(conn, REQUESTER, volume_id, wanted)))
    await asyncio.to_thread(looked.wait, 60)
    two = asyncio.create_task(pair[1].write(ends))
    while not two.done() and not await pair[0].read(lambda conn: conn.execute(_WAITING).scalar_one()):
        await asyncio.sleep(0.01)
    go.set()
    await asyncio.gather(one, two)
    assert (await pair[0].read(lambda conn: volumes.get(conn, volume_id))).status == "available"


async def test_writers_that_lock_crosswise_both_get_through(pair: Pair) -> None:
    first, second = [await pair[0].write(volume) for _ in range(2)]
    meet = threading.Barrier(2)
    tries = []

    def crosswise(one: str, other: str) -> Callable[[Connection], None]:
        def fn(conn: Connection) -> None:
            tries.append(one)
            conn.execute(update(rows).where(rows.c.id == one).values(name=one))
            if len(tries) <= 2:
                meet.wait(10)
            conn.execute(update(rows).where(rows.c.id == other).values(name=one))

        return fn

    await asyncio.gather(pair[0].write(crosswise(first, second)), pair[1].write(crosswise(second, first)))
    assert len(tries) > 2, "one of them ran again"
    names = await pair[0].read(lambda conn: set(conn.execute(select(rows.c.name)).scalars()))
    assert names in ({first}, {second})


async def test_what_both_miss_is_inserted_once(pair: Pair) -> None:
    issue = Issue(code="x.y", resource_type="host", resource_id="h", sentence="s", remedy="r")
    await asyncio.gather(*(pair[n % 2].write(lambda conn: issues.raise_issue(conn, issue)) for n in range(24)))
    count = await pair[0].read(lambda conn: conn.execute(select(func.count()).select_from(issue_rows)).scalar_one())
    assert count == 1


async def test_each_operation_is_claimed_by_one(pair: Pair) -> None:
    known = frozenset({("create_volume", 2)})

    def accept_many(conn: Connection) -> None:
        limits.put(conn, "p", {"volumes": -1})
        for _ in range(30):
            accept_volume(conn, Requester("p", "u", "r", "dead"), KEYS, NewVolume(size=1))
        operations.let_go(conn, "dead")

    await pair[0].write(accept_many)
    claims = await asyncio.gather(
        *(pair[n % 2].write(lambda conn, n=n: operations.claim(conn, f"c{n}", all_of_them=False, known=known))
          for n in range(8))
    )  # fmt: skip
    ids = [operation.id for claimed in claims for operation in claimed]
    assert len(ids) == len(set(ids)) == 30


async def test_what_only_another_release_can_do_does_not_stand_before_the_rest(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_CLAIMED_AT_ONCE", 2)

    def accept(conn: Connection, kind: str) -> str:
        made = Operation(
            id=new_id(), kind=kind, version=1, resource_type="thing", resource_id="t", project_id="p", user_id="u",
            request_id="r", args={}, steps={}, state="running", epoch=1, owner="dead",
        )  # fmt: skip
        operations.add(conn, made)
        return made.id

    for kind in ("newer",) * 3 + ("known",):
        await pair[0].write(lambda conn, kind=kind: accept(conn, kind))
    expired = update(operation_rows).values(lease_until=operation_rows.c.lease_until - 60)
    await pair[0].write(lambda conn: conn.execute(expired))
    known = frozenset({("known", 1)})
    claimed = await pair[0].write(lambda conn: operations.claim(conn, "c1", all_of_them=False, known=known))
    assert [operation.kind for operation in claimed] == ["known"]


async def test_a_session_that_is_killed_is_told_and_the_next_call_is_served(pair: Pair) -> None:
    def dies(conn: Connection) -> None:
        mine = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
        pair[1].read_now(lambda other: other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": mine}))
        volume(conn)

    with pytest.raises(DatabaseUnavailable):
        await pair[0].write(dies)
    for _ in range(12):
        await pair[0].write(volume)


async def test_a_session_that_stood_still_for_too_long_is_no_defect(pair: Pair) -> None:
    """The server ends it, in a state of its own; what it was to do is tried again by whoever wanted it."""

    def stands_still(conn: Connection) -> None:
        databases.stand_still(conn)
        conn.execute(text("SELECT 1"))

    for each in (pair[0].write_now, pair[0].read_now):
        with pytest.raises(DatabaseUnavailable):
            await asyncio.to_thread(each, stands_still)
    await pair[0].write(volume)


async def test_who_finds_the_server_started_anew_takes_no_second_place_in_the_pool(pair: Pair) -> None:
    db, most = pair[0], 6
    meet, taken = threading.Barrier(most), []

    def together(conn: Connection) -> None:
        conn.execute(text("SELECT 1"))
        meet.wait(60)
        taken.append(db.engine.pool.checkedout())  # type: ignore[attr-defined]
        meet.wait(60)

    await asyncio.gather(*(db.write(together) for _ in range(most)))
    postgres.cluster().run(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{db.engine.url.database}'"
    )
    await asyncio.gather(*(db.write(together) for _ in range(most)))
    assert taken == [most] * (2 * most)


async def test_what_no_column_holds_is_said_so(pair: Pair) -> None:
    await pair[0].write(volume)
    for bad in ("\0", "x" * 300):
        with pytest.raises(NotStorable):
            await pair[0].write(lambda conn, bad=bad: conn.execute(update(rows).values(name=bad)).rowcount)


async def test_news_reach_the_others_and_not_oneself(pair: Pair) -> None:
    heard: list[tuple[int, str]] = []
    came = threading.Event()
    for number, db in enumerate(pair):
        db.news.follow("ended", lambda key, number=number: (heard.append((number, key)), came.set()))
        db.news.start()
    for _ in range(50):
        pair[0].news.tell("ended", "op-1")
        if await asyncio.to_thread(came.wait, 0.2):
            break
    assert set(heard) == {(1, "op-1")}


async def test_who_gives_a_promise_back_and_who_waits_for_it_both_find_a_place(pair: Pair) -> None:
    """One that is placed again first gives up its old place, and so holds the pool that another one wants."""
    db, scheduler, gave, go = pair[0], Scheduler(), threading.Event(), threading.Event()
    facts = HostFacts(host="one", boot_id="b", arch="x", kernel="k", version="v", started_at="", clock=0.0)
    pool = Pool.model_validate(
        {"backend": "files", "name": "files", "driver": "file", "thin": False}
        | {"total_bytes": 100, "free_bytes": 100, "allocated_bytes": 0}
    )

    def enter_host(conn: Connection) -> None:
        enrolment.put_host(conn, EnrolledHost("one", "127.0.0.1", 1, 2, "0" * 64, utcnow()))
        fleet.ensure_hosts(conn)
        fleet.report(conn, "one", facts, [pool])
        claim(conn, "one@files#files", 10)

    def again(conn: Connection) -> str:
        release(conn, "one@files#files", 10)
        gave.set()
        assert go.wait(30)
        return scheduler.place(conn, Request(device_bytes=10)).host_id

    await db.write(enter_host)
    first = asyncio.create_task(db.write(again))
    await asyncio.to_thread(gave.wait, 30)
    second = asyncio.create_task(db.write(lambda conn: scheduler.place(conn, Request(device_bytes=10)).host_id))
    async with asyncio.timeout(60):
        while not await db.read(lambda conn: conn.execute(_WAITING).scalar_one()):
            await asyncio.sleep(0.01)
    go.set()
    assert await asyncio.gather(first, second) == ["one", "one"]
