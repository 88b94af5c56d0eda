"""What a transaction promises on either database: a read writes nothing, who stood still for too long runs again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import DBAPIError

from coordinator.state.database import Database
from coordinator.state.errors import DatabaseNotUsable, SessionLost
from coordinator.state.tables.quotas import quota_limits
from tests.support import databases, postgres


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    if databases.is_alone():
        made = databases.fresh(tmp_path / "db")
        yield made, made
        made.close()
        return
    async with databases.two(tmp_path / "db") as both:
        yield both


def limit(conn: Connection, project: str = "p") -> None:
    conn.execute(insert(quota_limits).values(project_id=project, resource="volumes", hard_limit=1))


def kept(conn: Connection) -> int:
    return int(conn.execute(select(func.count()).select_from(quota_limits)).scalar_one())


async def test_a_write_inside_a_read_is_refused_at_once(pair: tuple[Database, Database]) -> None:
    db = pair[0]
    for number in range(3):  # on connections that wrote before, and that write again afterwards
        await db.write(lambda conn, number=number: limit(conn, f"{number}"))
        for read in (db.read, db.glance):
            with pytest.raises(DBAPIError, match=r"read-?only"):
                await read(limit)
        with pytest.raises(DBAPIError, match=r"read-?only"):
            db.read_now(limit)
        assert await db.read(kept) == number + 1


class StandsStill:
    """Writes or reads something, and in the first runs waits until the server has ended its session."""

    def __init__(self, times: int, then: Any = lambda _conn: None) -> None:
        self.times, self.runs, self.then = times, 0, then

    def __call__(self, conn: Connection) -> int:
        self.runs += 1
        found = self.then(conn)
        if self.runs <= self.times:
            databases.stand_still(conn)
            conn.execute(text("SELECT 1"))
        return int(found or 0)


@pytest.mark.only("postgresql")
async def test_who_stood_still_runs_again_and_does_it_once(pair: tuple[Database, Database]) -> None:
    db = pair[0]
    ways = (db.write, lambda fn: db.write(fn, together="us"), lambda fn: db.write(fn, patient=True))
    for number, write in enumerate(ways):
        work = StandsStill(1, lambda conn, number=number: limit(conn, f"{number}"))
        await write(work)
        assert work.runs >= 2
        assert await db.read(kept) == number + 1
    for read in (db.read, db.glance):
        work = StandsStill(1, kept)
        assert (await read(work), work.runs) == (3, 2)


@pytest.mark.only("postgresql")
async def test_who_stands_still_each_time_is_told_so(pair: tuple[Database, Database]) -> None:
    db = pair[0]
    for way in (db.write, db.read, db.glance):
        work = StandsStill(99)
        with pytest.raises(SessionLost):
            await way(work)
        assert work.runs == 3
    await db.write(limit)


@pytest.mark.only("postgresql")
def test_what_the_url_asks_for_goes_before_what_we_do() -> None:
    url = f"{postgres.cluster().database()}&options=-c%20lock_timeout%3D3s&application_name=mine"
    db = Database.postgresql(url)
    try:
        told = db.read_now(
            lambda conn: [
                conn.exec_driver_sql(f"SHOW {name}").scalar_one()
                for name in ("lock_timeout", "application_name", "idle_in_transaction_session_timeout", "timezone")
            ]
        )
    finally:
        db.close()
    assert told == ["3s", "mine", "8s", "UTC"]


@pytest.mark.only("postgresql")
@pytest.mark.parametrize(("told", "word"), [("120022", "version 12, older than 13"), ("90624", "version 9, older")])
def test_a_server_that_is_too_old_is_refused_with_the_version_that_is_needed(told: str, word: str) -> None:
    """A real one, which says of itself what an old one would."""
    url = postgres.cluster().database()
    name = url.partition("@/")[2].partition("?")[0]
    db = Database.postgresql(url)
    try:
        db.write_now(
            lambda conn: conn.exec_driver_sql(
                "CREATE SCHEMA old; CREATE FUNCTION old.current_setting(asked text) RETURNS text LANGUAGE sql AS $$"
                f"SELECT CASE asked WHEN 'server_version_num' THEN '{told}' ELSE pg_catalog.current_setting(asked) END"
                "$$"
            )
        )
    finally:
        db.close()
    postgres.cluster().run(f"ALTER DATABASE {name} SET search_path = old, pg_catalog, public")
    with pytest.raises(DatabaseNotUsable, match=word) as refused:
        Database.postgresql(url)
    assert "PostgreSQL 13 or newer" in refused.value.hint
