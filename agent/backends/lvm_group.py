"""The volume group of an LVM back end: its commands, the room in it, and what is wrong with it.

What a report says of the room is kept for a moment; what was promised since, and what commands that go on will take,
is counted on top of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Concatenate, ParamSpec, TypeVar

from agent.backends.base import PoolState, Trouble
from agent.backends.config import LvmBackendConfig
from agent.backends.errors import NoSpace
from agent.backends.lvm_report import parse
from agent.backends.lvm_space import Space
from agent.backends.lvm_trouble import Troubles
from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.privsep import lvm as verbs
from agent.privsep.client import call
from agent.privsep.errors import GroupFull, LvmFailed, PrivilegeTimeout

log = get_logger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
_KEEP_S, _KEEP_CHANGED_S = 15.0, 2.0


class LvmGroup:
    """One group as one back end uses it. Making it touches nothing: a group that is away may come back."""

    def __init__(self, backend: str, config: LvmBackendConfig) -> None:
        self._backend, self._config = backend, config
        self.name, self.pool = config.group, config.pool
        self._space: tuple[float, Space] | None = None
        self._made_since = self._under_way = 0  # bytes promised since that report, and by commands that go on
        self._changed = False
        self._reading = asyncio.Lock()
        self._policy_set = False
        self._resume = True  # a command of an earlier life may have left something suspended
        self._troubles = Troubles()

    async def ask(self, verb: Callable[Concatenate[str, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a verb, whose first argument is the group, that leaves the room as it is."""
        try:
            with self._troubles.noting():
                return await call(verb, self.name, *args, **kwargs)
        except PrivilegeTimeout:
            self._resume = True
            raise

    async def change(self, verb: Callable[Concatenate[str, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a verb that changes the group: what is known of its room is old afterwards. NoSpace where it is full."""
        try:
            return await self.ask(verb, *args, **kwargs)
        except GroupFull as full:
            raise NoSpace(backend=self._backend) from full
        finally:
            self._changed = True

    @contextlib.asynccontextmanager
    async def promised(self, more: int) -> AsyncIterator[None]:
        """Around a command that takes `more` bytes: until it ended they count, whatever a report says."""
        (await self.space()).admit(more, self._made_since + self._under_way)
        self._under_way += more
        try:
            yield
            self._made_since += more
        finally:
            self._under_way -= more

    async def state(self) -> PoolState:
        return (await self.space()).state(self._made_since + self._under_way)

    async def space(self, *, fresh: bool = False) -> Space:
        """What one report of the group tells, some seconds old unless `fresh`; the pool is grown when it is time."""
        async with self._reading:
            keep_s = _KEEP_CHANGED_S if self._changed else _KEEP_S
            if self._space is None or fresh or time.monotonic() - self._space[0] > keep_s:
                space = await self._read()
                if await self._tend(space):
                    space = await self._read()
                self._space = (time.monotonic(), space)
            return self._space[1]

    async def troubles(self) -> list[Trouble]:
        with contextlib.suppress(BrickyardError):  # it is noted
            space = await self.space()
            self._troubles.set("backend.pool-full", space.full())
            self._troubles.set("lvm.group-missing", space.broken())
        return self._troubles.listed()

    async def _read(self) -> Space:
        await self._wake()
        self._changed, self._made_since = False, 0
        text = await self.ask(verbs.lvm_report)
        with self._troubles.noting():
            space = Space(self._backend, self._config, await asyncio.to_thread(parse, text, self.name))
            space.check()
        return space

    async def _wake(self) -> None:
        """What a command that was killed left suspended goes on; where that fails it is told, and tried again."""
        if not self._resume:
            return
        try:
            woken = await self.ask(verbs.lvm_resume)
        except LvmFailed as error:
            log.warning("suspended volumes could not be woken", backend=self._backend, reason=str(error))
            return
        self._resume = False
        if woken:
            log.warning("suspended volumes were woken", backend=self._backend, volumes=list(woken))

    async def _tend(self, space: Space) -> bool:
        """Choose once what a full pool does, grow it at its mark; whether anything was changed."""
        pool, when_full = space.pool, self._config.when_full
        if pool is None or self.pool is None:
            return False
        changed = False
        if not self._policy_set and when_full not in {"keep", pool.lv_when_full}:
            await self.ask(verbs.lvm_pool, self.pool, when_full)
            changed = True
        self._policy_set = True
        for part, more in space.growth().items():
            try:
                await self.ask(verbs.lvm_grow_pool, self.pool, part, more)
            except BrickyardError as error:
                log.warning("thin pool could not be grown", backend=self._backend, part=part, reason=str(error))
                continue
            log.info("thin pool grown", backend=self._backend, part=part, bytes=more)
            changed = True
        return changed
