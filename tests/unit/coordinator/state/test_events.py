"""The order of events: whoever follows them misses none and sees none twice, however many write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from coordinator.state import events
from coordinator.state.database import Database
from coordinator.state.events import Change
from tests.support import databases


def change(number: int) -> Change:
    return Change("thing", f"{number:08d}", "p", "u", "req-1")


def add(conn: Connection, number: int) -> None:
    events.record(conn, change(number), "thing.made", {"number": number})


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """Two coordinators' connections; on SQLite, which one process has alone, the same one twice."""
    first = databases.fresh(tmp_path / "db")
    second = first if first.alone else databases.fresh(tmp_path / "db")
    yield first, second
    for each in {id(one): one for one in (first, second)}.values():
        await asyncio.to_thread(each.close)


async def follow(db: Database, after: int) -> tuple[list[int], int]:
    await events.numbered(db)
    rows = await db.read(lambda conn: events.after(conn, after, None, 1000))
    return [row.payload["number"] for row in rows], rows[-1].position if rows else after


async def test_who_waits_is_woken_by_a_commit_alone(pair: tuple[Database, Database]) -> None:
    bell = pair[0].new_events
    before = bell.count

    def fails(conn: Connection) -> None:
        add(conn, 1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await pair[0].write(fails)
    await pair[0].write(events.number)
    assert not await bell.after(before, 0.05)
    woken = asyncio.gather(*(bell.after(before, 30) for _ in range(3)))
    await asyncio.sleep(0)
    await asyncio.gather(*(pair[0].write(lambda conn, number=number: add(conn, number)) for number in range(9)))
    assert await woken == [True, True, True]
    assert await bell.after(before, 0), "what came before the wait is not missed"


@pytest.mark.only("postgresql")
async def test_another_coordinator_is_woken(pair: tuple[Database, Database]) -> None:
    for each in pair:
        each.news.start()
    bell = pair[1].new_events
    async with asyncio.timeout(60):
        while True:
            await pair[0].write(lambda conn: add(conn, 1))
            if await bell.after(0, 0.2):  # it listens only once it is connected
                break
        for number in range(2, 20):
            rung = bell.count
            await pair[0].write(lambda conn, number=number: add(conn, number))
            assert await bell.after(rung, 10)


@pytest.mark.only("postgresql")
async def test_one_that_commits_late_comes_after_those_that_were_seen(pair: tuple[Database, Database]) -> None:
    wrote, may_commit = threading.Event(), threading.Event()

    def slow(conn: Connection) -> None:
        add(conn, 1)
        wrote.set()
        assert may_commit.wait(30)

    late = asyncio.ensure_future(pair[0].write(slow))
    await asyncio.to_thread(wrote.wait, 30)
    await pair[1].write(lambda conn: add(conn, 2))
    seen, after = await follow(pair[1], 0)
    assert seen == [2]
    may_commit.set()
    await late
    assert await follow(pair[1], after) == ([1], after + 1)


async def test_many_writers_and_a_follower_each(pair: tuple[Database, Database]) -> None:
    total, seen = 120, ([], [])  # type: tuple[int, tuple[list[int], list[int]]]

    async def write(number: int) -> None:
        await pair[number % 2].write(lambda conn: add(conn, number))

    async def read(which: int) -> None:
        after = 0
        while len(seen[which]) < total:
            some, after = await follow(pair[which], after)
            seen[which].extend(some)

    async with asyncio.timeout(120):
        await asyncio.gather(*(write(number) for number in range(total)), read(0), read(1))
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == list(range(total))


async def test_positions_have_no_gaps_and_go_on_when_old_events_are_gone(pair: tuple[Database, Database]) -> None:
    from coordinator.state.tables.events import events as table

    for number in range(3):
        await pair[0].write(lambda conn, number=number: add(conn, number))
    assert await follow(pair[0], 0) == ([0, 1, 2], 3)
    await pair[0].write(lambda conn: conn.execute(table.delete()))
    await pair[0].write(lambda conn: add(conn, 3))
    assert await follow(pair[0], 3) == ([3], 4)


async def test_more_events_than_one_round_gives_places_to(
    pair: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "AT_ONCE", 3)
    monkeypatch.setattr(events, "_NEW", events._NEW.limit(3))
    await pair[0].write(lambda conn: [add(conn, number) for number in range(10)])
    assert (await follow(pair[0], 0))[0] == list(range(10))


async def test_a_receiver_begins_with_what_happens_from_now_on(pair: tuple[Database, Database]) -> None:
    await pair[0].write(lambda conn: add(conn, 1))
    await events.numbered(pair[0])
    row = await pair[0].write(lambda conn: events.consumer(conn, "hook"))
    assert row.position == 1
    assert await pair[0].write(lambda conn: events.delivered(conn, "hook", 1, 4))
    assert not await pair[0].write(lambda conn: events.delivered(conn, "hook", 1, 2))
    assert (await pair[0].write(lambda conn: events.consumer(conn, "hook"))).position == 4
