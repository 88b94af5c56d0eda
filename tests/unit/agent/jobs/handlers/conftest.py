"""The host of each test here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.agent.jobs.handlers.onehost import Host


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    await made.journal.open()
    yield made
    made.backend.close()
    await made.journal.close()
