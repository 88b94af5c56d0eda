"""State databases for tests: the same test runs on SQLite and on PostgreSQL (`BRICKYARD_TEST_DATABASES` narrows it)."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from coordinator.state.database import Database
from coordinator.state.schema import prepare
from tests.support import postgres

Pair = tuple[Database, Database]
WANTED = tuple(os.environ.get("BRICKYARD_TEST_DATABASES", "sqlite,postgresql").split(","))
_current = ["sqlite"]


def kinds(*, slow: bool = False) -> list[Any]:
    """Parameters of a fixture that calls `use`; `slow` leaves PostgreSQL to the full run."""
    marks = [pytest.mark.postgresql, *([pytest.mark.slow] if slow else [])]
    known = {"sqlite": pytest.param("sqlite"), "postgresql": pytest.param("postgresql", marks=marks)}
    return [known[name] for name in WANTED]


def use(request: pytest.FixtureRequest) -> str:
    """Make the fixture's parameter the kind of the databases that `empty` and `fresh` open; returns it."""
    kind = str(request.param)
    only = request.node.get_closest_marker("only")
    if only is not None and kind not in only.args:
        pytest.skip(f"only for {', '.join(only.args)}")
    hypothesis = getattr(request.node.obj, "is_hypothesis_test", False)
    if kind == "postgresql" and hypothesis and "not slow" in request.config.option.markexpr:
        pytest.skip("a database for each example: in the full run")
    _current[0] = kind
    return kind


def is_alone() -> bool:
    """Whether only one process can have a database of the kind in use."""
    return _current[0] == "sqlite"


def empty(path: Path) -> Database:
    """A database without any table; the same path again is the same database."""
    if _current[0] == "sqlite":
        return Database.sqlite(path)
    return Database.postgresql(_url(path, ""), writers=6)


def fresh(path: Path) -> Database:
    """A database with this release's schema; the same path again is the same database."""
    if _current[0] == "sqlite":
        made = Database.sqlite(path)
        made.write_now(prepare)
        return made
    return Database.postgresql(_url(path, _template()), writers=6)


def stand_still(conn: Connection) -> None:
    """Wait in the middle of this transaction until the server has ended it, and has said so."""
    conn.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
    ended = select.poll()
    # What is sent while it closes would be all that is heard of: a broken connection, and no reason.
    ended.register(conn.connection.dbapi_connection.fileno(), select.POLLRDHUP)  # type: ignore[union-attr]
    assert ended.poll(100_000)


@asynccontextmanager
async def two(path: Path) -> AsyncIterator[Pair]:
    """The same database, opened as by two coordinators; closed at the end."""
    made = fresh(path), fresh(path)
    try:
        yield made
    finally:
        for each in made:
            await asyncio.to_thread(each.close)


@cache
def _url(path: Path, template: str) -> str:
    return postgres.cluster().database(template or "template1")


@cache
def _template() -> str:
    url = postgres.cluster().database()
    db = Database.postgresql(url)
    db.write_now(prepare)
    db.close()
    return url.partition("@/")[2].partition("?")[0]
