"""Tickets: one user at a time, taking over, the end, and no descriptor left."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.base.errors import Invalid
from agent.targets.tickets import Ticket, Tickets
from agent.wire.errors import TicketBusy, TicketUnknown


async def hold(ticket: Ticket, started: asyncio.Event) -> None:
    async with ticket.use(take_over=False):
        started.set()
        await asyncio.Event().wait()


async def test_one_user_and_taking_over(tmp_path: Path) -> None:
    tickets, started = Tickets(), asyncio.Event()
    ticket = await tickets.open(tmp_path / "f", "write", "host:b", 60, None)
    first = asyncio.create_task(hold(ticket, started))
    await started.wait()
    with pytest.raises(TicketBusy):
        async with ticket.use(take_over=False):
            raise AssertionError
    async with ticket.use(take_over=True):
        assert first.done()
    await tickets.close_all()


async def test_closing_ends_the_user_before_the_descriptor(tmp_path: Path) -> None:
    tickets, started = Tickets(), asyncio.Event()
    ticket = await tickets.open(tmp_path / "f", "write", "host:b", 60, None)
    fd = ticket.fd
    user = asyncio.create_task(hold(ticket, started))
    await started.wait()
    assert await tickets.close(ticket.name) is ticket
    assert await tickets.close(ticket.name) is None
    assert user.done()
    with pytest.raises(OSError):
        os.fstat(fd)
    with pytest.raises(TicketUnknown):
        async with ticket.use(take_over=True):
            raise AssertionError
    with pytest.raises(TicketUnknown):
        tickets.find(ticket.name, "write", "host:b")


async def test_names_differ_and_a_lifetime_is_positive(tmp_path: Path) -> None:
    tickets = Tickets()
    names = {(await tickets.open(tmp_path / str(n), "write", "host:b", 60, None)).name for n in range(50)}
    assert len(names) == 50
    assert all(len(name) == 32 for name in names)
    with pytest.raises(Invalid):
        await tickets.open(tmp_path / "f", "write", "host:b", 0, None)
    await tickets.close_all()
