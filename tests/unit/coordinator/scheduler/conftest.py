"""Each test here runs on every kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import databases


@pytest.fixture(autouse=True, params=databases.kinds())
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which one."""
    return databases.use(request)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[databases.Pair]:
    async with databases.two(tmp_path / "db") as made:
        yield made
