"""Each test here runs on SQLite; on PostgreSQL too in the full run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import databases
from tests.unit.coordinator.fleet.polled import Fleet


@pytest.fixture(autouse=True, params=databases.kinds(slow=True))
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which one."""
    return databases.use(request)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    db = databases.fresh(tmp_path / "state.db")
    made = Fleet(db, tmp_path)
    yield made
    await made.poller.close()
    await made.directory.close()
    db.close()
