"""The hosts of a coordinator that died are polled by the others."""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from coordinator.fleet import poller as poller_module
from coordinator.state import enrolment
from coordinator.state import fleet as state
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts
from tests.support import databases
from tests.unit.coordinator.fleet.polled import Fleet


async def test_hosts_of_a_coordinator_that_died_are_polled_when_it_would_have_done_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a large site: those that were due meanwhile come first, the oldest of all before the others."""
    monkeypatch.setattr(poller_module, "_KEPT_CONNECTIONS", 2)
    db = databases.fresh(tmp_path / "db")
    fleet = Fleet(db, tmp_path)
    poller, directory = fleet.poller, fleet.directory
    poller._interval_s = 3000.0
    ago = {"h1": 100.0, "h2": 2999.0, "h3": 3100.0, "h4": 5000.0, "clock-ahead": -60.0, "silent": 10.0, "new": None}

    def enter_all(conn: Connection) -> None:
        for name in ago:
            enrolment.put_host(conn, EnrolledHost(name, "127.0.0.1", 1, 2, "0" * 64, utcnow()))
        state.ensure_hosts(conn)
        for name, seconds in ago.items():
            seen = None if seconds is None else utcnow() - datetime.timedelta(seconds=seconds)
            values = {"last_seen": seen, "reachable": name not in {"silent", "new"}}
            conn.execute(update(hosts).where(hosts.c.id == name).values(values))

    try:
        await db.write(enter_all)
        await directory.sync(await db.read(enrolment.hosts))
        for known in directory.all():
            known.mine = False
        poller._shares_moved()
        assert poller._taking is not None
        await poller._taking
        now = time.monotonic()
        due = {name: when - now for name, when in poller._table._due.items()}
        expected = {"h1": 2900, "h2": 1, "h3": -100, "h4": -2000, "clock-ahead": 3000, "silent": 0, "new": 0}
        assert due == pytest.approx(expected, abs=60)
        assert (await poller._table.next())[0] == "h4"
        assert {known.mine for known in directory.all()} == {True}
    finally:
        await poller.close()
        await asyncio.to_thread(db.close)
