"""Tickets of the data port: one file, one peer, one direction, one reader or writer, a random name, an end."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agent.base.errors import Invalid
from agent.wire.errors import TicketBusy, TicketUnknown

Direction = Literal["read", "write"]
MAX_TICKETS = 1024


@dataclass(slots=True)
class Ticket:
    """`received` counts bytes that lie in the file from its start without a gap; `complete`: synced and closed off."""

    name: str
    path: Path
    fd: int
    direction: Direction
    peer: str
    max_bytes: int | None
    received: int = 0
    complete: bool = False
    unsynced: int = 0
    user: asyncio.Task[object] | None = None
    free: asyncio.Event = field(default_factory=asyncio.Event)

    def writes(self, path: Path) -> bool:
        return self.direction == "write" and self.path == path

    @asynccontextmanager
    async def use(self, take_over: bool) -> AsyncIterator[None]:
        """Be the one reader or writer. `take_over` ends an earlier use first: its connection is dead to the peer."""
        if self.user is not None and not take_over:
            raise TicketBusy
        while self.user is not None:
            self.user.cancel()
            await self.free.wait()
        if self.fd < 0:
            raise TicketUnknown(peer=self.peer)
        self.user = asyncio.current_task()
        self.free.clear()
        try:
            yield
        finally:
            self.user = None
            self.free.set()


class Tickets:
    """All open tickets of this process. Use from one event loop."""

    def __init__(self) -> None:
        self._open: dict[str, Ticket] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[object]] = set()

    async def open(
        self, path: Path, direction: Direction, peer: str, lifetime_s: float, max_bytes: int | None
    ) -> Ticket:
        """A new ticket on a regular file (made empty for writing, 0600; never through a symbolic link).

        Earlier tickets to write the same file end: what a lost upload still sends must not mix with the next one.

        Raises `Invalid` for anything else than a regular file, OSError when it can not be opened.
        """
        if len(self._open) >= MAX_TICKETS:
            raise TicketBusy
        if lifetime_s <= 0:
            raise Invalid(reason="A transfer's lifetime must be positive.")
        if direction == "write":
            await self.close_writers(path)
        fd = await asyncio.to_thread(_open, path, direction)
        ticket = Ticket(secrets.token_urlsafe(24), path, fd, direction, peer, max_bytes)
        self._open[ticket.name] = ticket
        self._timers[ticket.name] = asyncio.get_running_loop().call_later(lifetime_s, self._expire, ticket.name)
        return ticket

    def find(self, name: str, direction: Direction | None, peer: str) -> Ticket:
        """The ticket, if it is this peer's and for this direction; the same `TicketUnknown` for every other case."""
        ticket = self._open.get(name)
        if ticket is None or ticket.peer != peer or direction not in (None, ticket.direction):
            raise TicketUnknown(peer=peer)
        return ticket

    async def close(self, name: str) -> Ticket | None:
        """End a ticket and whoever uses it; None when it is gone already. Nothing touches the file afterwards."""
        ticket = self._open.pop(name, None)
        if ticket is None:
            return None
        self._timers.pop(name).cancel()
        fd, ticket.fd = ticket.fd, -1
        while ticket.user is not None:
            ticket.user.cancel()
            await ticket.free.wait()
        await asyncio.to_thread(os.close, fd)
        return ticket

    async def close_writers(self, path: Path) -> None:
        """End every ticket to write this file; nothing touches it afterwards."""
        for name in [ticket.name for ticket in self._open.values() if ticket.writes(path)]:
            await self.close(name)

    async def close_all(self) -> None:
        for name in list(self._open):
            await self.close(name)
        if self._closing:
            await asyncio.gather(*self._closing)

    def _expire(self, name: str) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(self.close(name))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _open(path: Path, direction: Direction) -> int:
    import stat

    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    flags |= os.O_RDONLY if direction == "read" else os.O_RDWR | os.O_CREAT
    fd = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Invalid(reason=f"{path.name} is not a regular file.")
        if direction == "write":
            os.ftruncate(fd, 0)
        else:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    except BaseException:
        os.close(fd)
        raise
    return fd
