"""Hosts are shared out among the living coordinators: each to exactly one, and few move when one comes or goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.fleet.membership import Membership, watcher
from tests.support import databases

HOSTS = [f"host-{n}" for n in range(300)]


@given(st.sets(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=6))
def test_only_the_share_of_the_one_that_goes_moves(names: set[str]) -> None:
    members = tuple(sorted(names))
    left = members[1:]
    for host in HOSTS[:60]:
        before = watcher(host, members)
        assert before in members
        if before != members[0]:
            assert watcher(host, left) == before


def test_shares_are_even() -> None:
    members = ("c1", "c2", "c3")
    for member in members:
        assert 60 < sum(watcher(host, members) == member for host in HOSTS) < 140


@pytest.mark.only("postgresql")
async def test_two_find_each_other_and_one_that_leaves_is_missed(tmp_path: Path) -> None:
    db = databases.fresh(tmp_path / "db")
    first, second = (Membership(db, name, name, "1") for name in ("c1", "c2"))
    try:
        await first.begin()
        assert all(first.mine(host) for host in HOSTS)
        await second.begin()
        await first._say()
        assert first.members == second.members == ("c1", "c2")
        assert all(first.mine(host) != second.mine(host) for host in HOSTS)
        told = asyncio.Event()
        first.changed(told.set)
        await second.close()
        await asyncio.wait_for(told.wait(), 60)
        assert all(first.mine(host) for host in HOSTS)
    finally:
        await first.close()
        await asyncio.to_thread(db.close)


def test_a_host_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    db = databases.fresh(tmp_path / "db")
    try:
        made = Membership(db, "c1", "c1", "1")
        made.members = ("c1", "c2")
        assert {made.mine(host) for host in HOSTS} == {True, False}
        for host in HOSTS:
            made.forget(host)
        assert not made._watchers
        made.forget("unknown")
    finally:
        db.close()
