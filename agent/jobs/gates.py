"""Who may run now: one writer or many readers per resource, and so many jobs per lane."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.host.locks import resource_lock
from agent.jobs.kinds import Lane, Needs


@dataclass(slots=True)
class _Door:
    """First come, first served; readers pass together."""

    readers: int = 0
    writing: bool = False
    queue: deque[tuple[bool, asyncio.Future[None]]] = field(default_factory=deque)

    def free(self, exclusive: bool) -> bool:
        return not self.writing and not (exclusive and self.readers)

    def enter(self, exclusive: bool) -> None:
        if exclusive:
            self.writing = True
        else:
            self.readers += 1

    def leave(self, exclusive: bool) -> None:
        if exclusive:
            self.writing = False
        else:
            self.readers -= 1
        self.admit()

    def admit(self) -> None:
        while self.queue:
            exclusive, waiter = self.queue[0]
            if waiter.cancelled():
                self.queue.popleft()
            elif self.free(exclusive):
                self.queue.popleft()
                self.enter(exclusive)
                waiter.set_result(None)
            else:
                return

    @property
    def idle(self) -> bool:
        return not (self.readers or self.writing or self.queue)


class Gates:
    """`hold(needs, lane)` waits until a job may run, and keeps others out while it does."""

    def __init__(self, lock_dir: Path, lanes: Mapping[Lane, int], lock_deadline_s: float) -> None:
        self._lock_dir = lock_dir
        self._lock_deadline_s = lock_deadline_s
        self._doors: dict[str, _Door] = {}
        self._lanes = {lane: asyncio.Semaphore(places) for lane, places in lanes.items()}

    @asynccontextmanager
    async def hold(self, needs: Needs, lane: Lane) -> AsyncIterator[int | None]:
        """Yields the descriptor of the file lock (None when nothing is exclusive).

        The file lock waits for tools of an earlier life of the agent, up to its deadline.
        """
        wanted = dict.fromkeys(needs.shared, False) | dict.fromkeys(needs.exclusive, True)
        held: list[str] = []
        try:
            for name in sorted(wanted):  # always in this order, so that two jobs never wait for each other
                await self._enter(name, wanted[name])
                held.append(name)
            async with self._lanes[lane]:
                if not needs.exclusive:
                    yield None
                else:
                    async with resource_lock(self._lock_dir, needs.exclusive[0], self._lock_deadline_s) as fd:
                        yield fd
        finally:
            for name in reversed(held):
                self._leave(name, wanted[name])

    async def _enter(self, name: str, exclusive: bool) -> None:
        door = self._doors.setdefault(name, _Door())
        if not door.queue and door.free(exclusive):
            door.enter(exclusive)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        door.queue.append((exclusive, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._leave(name, exclusive)
            else:
                door.admit()
                self._forget(name, door)
            raise

    def _leave(self, name: str, exclusive: bool) -> None:
        door = self._doors[name]
        door.leave(exclusive)
        self._forget(name, door)

    def _forget(self, name: str, door: _Door) -> None:
        if door.idle:
            self._doors.pop(name, None)
