"""Each test here runs on SQLite; on PostgreSQL too in the full run."""

from __future__ import annotations

import pytest

from tests.support import databases


@pytest.fixture(autouse=True, params=databases.kinds(slow=True))
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which one."""
    return databases.use(request)
