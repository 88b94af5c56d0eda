"""Each test here runs on every kind of database."""

from __future__ import annotations

import pytest

from tests.support import databases


@pytest.fixture(autouse=True, params=databases.kinds())
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which one."""
    return databases.use(request)
