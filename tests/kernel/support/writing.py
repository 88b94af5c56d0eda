"""Somebody who writes to a device all the time, past the page cache, and remembers what is where."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.kernel.support.initiator import read, until, write

_BLOCK, _BLOCKS = 64 << 10, 64


class Writer:
    """`written`: how many blocks; each is somewhere in the first four MiB. What fails ends it."""

    def __init__(self, device: Path) -> None:
        self.device, self.written = device, 0
        self._there: dict[int, bytes] = {}
        self._stop = threading.Event()

    def run(self) -> None:
        while not self._stop.is_set():
            offset, content = self.written % _BLOCKS * _BLOCK, os.urandom(_BLOCK)
            write(self.device, content, offset)
            self._there[offset] = content
            self.written += 1

    def stop(self) -> None:
        self._stop.set()

    async def goes_on(self) -> None:
        """Until some more was written."""
        enough = self.written + 3
        await asyncio.to_thread(until, lambda: self.written >= enough, 240, "nothing is written any more")

    def whole(self) -> bool:
        return all(read(self.device, _BLOCK, offset) == content for offset, content in self._there.items())


@asynccontextmanager
async def writing(device: Path) -> AsyncIterator[Writer]:
    """No write fails; at the end all is there that was written last."""
    made = Writer(device)
    task = asyncio.create_task(asyncio.to_thread(made.run))
    try:
        yield made
    finally:
        made.stop()
        await task
    assert made.whole()
