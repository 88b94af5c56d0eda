"""Writes that share a transaction: each stands or falls alone, and all are on disk when their callers hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from coordinator.state.database import Database
from coordinator.state.errors import DatabaseUnavailable
from tests.support import databases


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = databases.empty(tmp_path / "a.db")
    await database.write(lambda conn: conn.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)")).rowcount)
    yield database
    await asyncio.to_thread(database.close)


def _insert(number: int) -> Any:
    def fn(conn: Connection) -> int:
        conn.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
        return number

    return fn


def _numbers(conn: Connection) -> list[int]:
    return list(conn.execute(text("SELECT n FROM t ORDER BY n")).scalars())


@pytest.mark.only("sqlite")
async def test_many_at_once_are_few_transactions(db: Database) -> None:
    begun: list[int] = []

    def spy(conn: Connection) -> int:
        begun.append(id(conn))
        return len(begun)

    assert await asyncio.gather(*(db.write(_insert(n)) for n in range(200))) == list(range(200))
    await asyncio.gather(*(db.write(spy) for _ in range(100)))
    assert len(set(begun)) < 50
    assert await db.read(_numbers) == list(range(200))


async def test_one_that_raises_takes_nothing_of_its_neighbours_along(db: Database) -> None:
    def half(conn: Connection) -> None:
        conn.execute(text("INSERT INTO t VALUES (1000)"))
        with conn.begin_nested():
            conn.execute(text("INSERT INTO t VALUES (1001)"))
        raise KeyError("half")

    calls = [db.write(half if n % 3 == 0 else _insert(n)) for n in range(60)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in outcomes[::3]] == [KeyError] * 20
    assert await db.read(_numbers) == [n for n in range(60) if n % 3]


@pytest.mark.only("sqlite")
async def test_a_failure_that_ends_the_transaction_makes_each_run_alone(db: Database) -> None:
    def ends(conn: Connection) -> None:
        conn.exec_driver_sql("ROLLBACK")
        raise KeyError("it is over")

    outcomes = await asyncio.gather(
        *(db.write(ends if n == 7 else _insert(n)) for n in range(20)), return_exceptions=True
    )
    assert isinstance(outcomes[7], KeyError)
    assert await db.read(_numbers) == [n for n in range(20) if n != 7]


@pytest.mark.only("sqlite")
async def test_a_full_disk_is_told_to_each(db: Database) -> None:
    def small(conn: Connection) -> None:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def big(conn: Connection) -> None:
        conn.execute(text("CREATE TABLE IF NOT EXISTS big (x BLOB)"))
        conn.execute(text("INSERT INTO big VALUES (zeroblob(1000000))"))

    await db.write(small)
    outcomes = await asyncio.gather(*(db.write(big) for _ in range(4)), db.write(_insert(1)), return_exceptions=True)
    assert [type(each) for each in outcomes[:4]] == [DatabaseUnavailable] * 4
    assert outcomes[4] == 1
    assert await db.read(_numbers) == [1]


async def test_a_caller_that_goes_away_leaves_its_write(db: Database) -> None:
    task = asyncio.create_task(db.write(_insert(5)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await db.write(_insert(6))
    async with asyncio.timeout(60):  # On PostgreSQL the two are written side by side.
        while await db.read(_numbers) != [5, 6]:
            await asyncio.sleep(0.01)


async def test_the_patient_wait_for_others_but_not_for_ever(db: Database) -> None:
    order: list[str] = []

    def note(what: str) -> Any:
        return lambda conn: order.append(what)

    async def callers() -> None:
        for _ in range(20):
            await db.write(note("call"))

    background = asyncio.gather(*(db.write(note("patient"), patient=True) for _ in range(400)))
    await asyncio.gather(*(callers() for _ in range(8)), background)
    assert order.count("call") == 160
    assert order.count("patient") == 400
    last_call = len(order) - order[::-1].index("call")
    assert order[:last_call].count("patient") >= 10
    assert order.index("call") < 400
