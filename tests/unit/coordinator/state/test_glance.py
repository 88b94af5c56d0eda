"""Reads that share a snapshot: each gets its own answer or error, and what was written before it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from coordinator.state.database import Database
from tests.support import databases


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = databases.empty(tmp_path / "a.db")
    await database.write(lambda conn: conn.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)")).rowcount)
    yield database
    await asyncio.to_thread(database.close)


def _count(conn: Connection) -> int:
    return int(conn.execute(text("SELECT count(*) FROM t")).scalar_one())


async def test_many_at_once_are_few_transactions(db: Database) -> None:
    seen: list[int] = []

    def spy(conn: Connection) -> int:
        seen.append(id(conn))
        return len(seen)

    assert len(set(await asyncio.gather(*(db.glance(spy) for _ in range(96))))) == 96
    assert len(set(seen)) <= 24


async def test_one_that_raises_is_alone_with_it(db: Database) -> None:
    def bad(_conn: Connection) -> int:
        raise KeyError("mine")

    def broken(conn: Connection) -> int:
        return int(conn.execute(text("SELECT n FROM nowhere")).scalar_one())

    calls = [db.glance({0: bad, 1: broken}.get(n % 5, _count)) for n in range(30)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for number, outcome in enumerate(outcomes):
        if number % 5 == 0:
            assert isinstance(outcome, KeyError)
        elif number % 5 == 1:
            assert "nowhere" in str(outcome)
        else:
            assert outcome == 0


async def test_what_was_written_before_is_seen(db: Database) -> None:
    async def one(number: int) -> None:
        await db.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (:n)"), {"n": number}).rowcount)
        found = await db.glance(lambda conn: conn.execute(text("SELECT n FROM t WHERE n = :n"), {"n": number}).scalar())
        assert found == number

    await asyncio.gather(*(one(number) for number in range(100)))
    assert await db.glance(_count) == 100


async def test_another_loop_may_ask_after_one_has_ended(db: Database) -> None:
    assert await asyncio.to_thread(lambda: asyncio.run(db.glance(_count))) == 0
    assert await db.glance(_count) == 0
