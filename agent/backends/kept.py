"""The back ends of a host as they are now: opened at the start and at each reload, tried again while one is away.

A back end that can not be opened (its group is not there, its folder can not be reached) keeps nobody else from
working: it has no pools, its jobs are put off, and it is tried again after 1, 2, 4, … and at last every 30 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

from agent.backends.base import Backend, Trouble
from agent.backends.config import BackendConfig
from agent.backends.opening import opened
from agent.base.errors import BrickyardError
from agent.base.log import get_logger

log = get_logger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
Open = Callable[[str, BackendConfig], Backend]


class Backends(Mapping[str, Backend]):
    """By name those that are open; `away` tells why the others are not. Lives on one event loop."""

    def __init__(self, open_: Open = opened) -> None:
        self._make = open_
        self._configs: dict[str, BackendConfig] = {}
        self._open: dict[str, Backend] = {}
        self._trying: dict[str, asyncio.Task[None]] = {}
        self._retired: list[Backend] = []
        self.away: dict[str, Trouble] = {}

    def __getitem__(self, name: str) -> Backend:
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    @property
    def configured(self) -> tuple[str, ...]:
        return tuple(sorted(self._configs))

    async def follow(self, configs: Mapping[str, BackendConfig]) -> None:
        """Open what is new or changed, let go of what is not wanted any more. One that fails is tried again later.

        One that is changed serves as it was until it is open as it is to be: nobody finds it missing in between.
        """
        for name in self._configs.keys() - configs.keys():
            self._leave(name)
            self.away.pop(name, None)
        fresh = {name: config for name, config in configs.items() if self._configs.get(name) != config}
        for name in fresh:
            self._try_no_more(name)
        self._configs = dict(configs)
        await asyncio.gather(*(self._try(name, config) for name, config in fresh.items()))

    def close(self) -> None:
        for task in self._trying.values():
            task.cancel()
        for backend in (*self._open.values(), *self._retired):
            backend.close()
        self._open.clear()

    def _leave(self, name: str) -> None:
        """Jobs that work on it end on it: it is closed with the agent."""
        backend = self._open.pop(name, None)
        if backend is not None:
            self._retired.append(backend)
        self._try_no_more(name)

    def _try_no_more(self, name: str) -> None:
        task = self._trying.pop(name, None)
        if task is not None:
            task.cancel()

    async def _try(self, name: str, config: BackendConfig) -> None:
        if not await self._opened(name, config):
            self._trying[name] = asyncio.create_task(self._again(name, config))

    async def _again(self, name: str, config: BackendConfig) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            if await self._opened(name, config):
                self._trying.pop(name, None)
                return
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)

    async def _opened(self, name: str, config: BackendConfig) -> bool:
        try:
            backend = await asyncio.to_thread(self._make, name, config)
        except (BrickyardError, OSError) as error:
            if self._configs.get(name) != config:
                return True  # it was changed once more meanwhile
            if name in self._open:
                self._retired.append(self._open.pop(name))
            known = self.away.get(name)
            reason = str(error).rstrip(".") if isinstance(error, BrickyardError) else error.strerror or str(error)
            remedy = error.remedy if isinstance(error, BrickyardError) else ""
            if known is None:
                log.warning("a back end can not be opened; it is tried again", backend=name, reason=reason)
            self.away[name] = Trouble(
                "backend.away", f"Back end {name} can not be used: {reason}.",
                remedy or "Mend its storage, or correct its configuration and reload; it is tried again by itself.",
                known.since if known is not None else time.time(),
            )  # fmt: skip
            return False
        if self._configs.get(name) != config:
            backend.close()  # it was taken out of the configuration meanwhile
            return True
        if self.away.pop(name, None) is not None:
            log.info("back end opened after all", backend=name)
        if name in self._open:
            self._retired.append(self._open[name])
        self._open[name] = backend
        return True
