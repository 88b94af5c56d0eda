"""A host in a folder: the kernel's files as plain files, what follows a write as functions, events in memory.

The same code runs on it as on a real host: readers read the files, privileged verbs write through `Kernel.write`, and
waits hear the events. Faults are put in on demand. `agent.host.simulated_z` brings devices of IBM Z to it.
"""

from __future__ import annotations

import asyncio
import errno as codes
import os
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.host import udev
from agent.host.kernel import Kernel

Reaction = Callable[[re.Match[str], str], None]


@dataclass(frozen=True, slots=True)
class _Listener:
    events: udev.Events
    loop: asyncio.AbstractEventLoop
    subsystems: frozenset[str]


class SimulatedKernel(Kernel):
    """`root` is an empty folder of the caller's. `programs` is searched for tools before the system's folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sys, self.proc, self.dev = root / "sys", root / "proc", root / "dev"
        self.programs = (str(root / "bin"), *Kernel.programs)
        self.writes: list[tuple[str, str]] = []
        self._reactions: list[tuple[re.Pattern[str], Reaction]] = []
        self._faults: dict[str, int] = {}
        self._listeners: list[_Listener] = []
        self._one_at_a_time = threading.RLock()
        for folder in (self.sys, self.proc, self.dev, root / "bin"):
            folder.mkdir()

    def put(self, place: str, value: str = "") -> Path:
        """A file below the root, with the final newline that the kernel writes."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
        return path

    def link(self, place: str, target: str) -> None:
        """A symbolic link below the root to another place below it."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(self.root / target, path.parent))

    def react(self, pattern: str, reaction: Reaction) -> None:
        """What a write to a matching path (relative to the root) does, instead of filling the file."""
        self._reactions.append((re.compile(pattern), reaction))

    def fail(self, place: str, code: int | None) -> None:
        """Answer writes to a place with this errno from now on; None: no more."""
        if code is None:
            self._faults.pop(place, None)
        else:
            self._faults[place] = code

    def write(self, path: Path, text: str) -> None:
        with self._one_at_a_time:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        place = path.relative_to(self.root).as_posix()
        self.writes.append((place, text))
        if place in self._faults:
            code = self._faults[place]
            raise OSError(code, os.strerror(code), place)
        for pattern, reaction in self._reactions:
            match = pattern.fullmatch(place)
            if match:
                reaction(match, text)
                return
        if not path.exists():
            raise OSError(codes.ENOENT, os.strerror(codes.ENOENT), place)
        path.write_text(text)

    def emit(self, action: str, path: str, subsystem: str, name: str = "", diskseq: int | None = None) -> None:
        """Tell all listeners; may be called from any thread."""
        event = udev.Event(action, name, diskseq, path, subsystem)
        for listener in tuple(self._listeners):
            if subsystem in listener.subsystems:
                listener.loop.call_soon_threadsafe(listener.events.put, event)

    def multipath_claims(self, name: str) -> bool:
        return any((self.sys / "block" / name / "holders").glob("dm-*"))

    def events(self, *subsystems: str) -> AbstractAsyncContextManager[udev.Events]:
        return self._subscribed(frozenset(subsystems))

    @asynccontextmanager
    async def _subscribed(self, subsystems: frozenset[str]) -> AsyncIterator[udev.Events]:
        listener = _Listener(udev.Events(udevd=True), asyncio.get_running_loop(), subsystems)
        self._listeners.append(listener)
        try:
            yield listener.events
        finally:
            self._listeners.remove(listener)
