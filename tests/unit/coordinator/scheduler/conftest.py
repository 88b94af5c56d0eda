"""Each test here runs on every kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coordinator.state.database import Database
from tests.support import databases


@pytest.fixture(autouse=True, params=databases.kinds())
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which one."""
    return databases.use(request)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = databases.fresh(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[databases.Pair]:
    async with databases.two(tmp_path / "db") as made:
        yield made
