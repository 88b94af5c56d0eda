"""Watching mirrors goes on whatever becomes of one round."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.jobs import healing
from agent.jobs.journal import Journal


async def test_a_round_that_fails_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "PERIOD_S", 0.01)
    journal = Journal(tmp_path / "journal.db")
    read, looked, again = journal.read, 0, asyncio.Event()

    async def full_at_first(fn: Any) -> Any:
        nonlocal looked
        looked += 1
        if looked == 1:
            raise sqlite3.OperationalError("database or disk is full")
        again.set()
        return await read(fn)

    monkeypatch.setattr(journal, "read", full_at_first)

    @asynccontextmanager
    async def hold(needs: Any) -> Any:
        yield None

    watching = healing.Healing(SimpleNamespace(journal=journal, boot_id="now"), hold)  # type: ignore[arg-type]
    watching.start()
    try:
        await asyncio.wait_for(again.wait(), 60)
    finally:
        await watching.stop()
        journal.close()
