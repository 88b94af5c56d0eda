"""Tickets: one user at a time, taking over, the end, and no descriptor left."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from agent.base.errors import Invalid
from agent.targets import dataport
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


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_however_often_a_user_is_ended_its_thread_ends_before_the_descriptor(tmp_path: Path, times: int) -> None:
    """Taken over, and taken over again, and closed: a descriptor whose number is free again is another's file."""
    tickets, at_work, go_on = Tickets(), threading.Event(), threading.Event()
    ticket = await tickets.open(tmp_path / "f", "write", "host:b", 60, None)
    fd = ticket.fd

    def slow() -> None:
        at_work.set()
        go_on.wait(60)
        os.fstat(fd)

    async def use() -> None:
        async with ticket.use(take_over=False):
            await dataport._in_thread(slow)

    user = asyncio.create_task(use())
    await asyncio.to_thread(at_work.wait, 10)
    for _ in range(times):
        user.cancel()
        await asyncio.sleep(0.01)
    closing = asyncio.create_task(tickets.close(ticket.name))
    done, _ = await asyncio.wait([closing], timeout=0.1)
    os.fstat(fd)
    assert not done
    go_on.set()
    await closing


async def test_one_writer_per_file(tmp_path: Path) -> None:
    """What a lost upload still sends must not mix with the bytes of the next one."""
    tickets, started = Tickets(), asyncio.Event()
    old = await tickets.open(tmp_path / "f", "write", "coordinator", 60, None)
    reading = await tickets.open(tmp_path / "f", "read", "host:b", 60, None)
    user = asyncio.create_task(hold(old, started))
    await started.wait()
    new = await tickets.open(tmp_path / "f", "write", "coordinator", 60, None)
    assert user.done()
    assert (old.fd, reading.fd >= 0, new.fd >= 0) == (-1, True, True)
    await tickets.close_writers(tmp_path / "f")
    assert (reading.fd >= 0, new.fd) == (True, -1)
    await tickets.close_all()
