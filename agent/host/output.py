"""What a tool says: one pipe, read as it fills, kept within a limit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_PIECE = 64 * 1024


class Collector:
    """Reads one pipe on the event loop; keeps the first `limit` bytes and the last `limit` bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, on_output: Callable[[bytes], None] | None) -> None:
        self._loop = loop
        self._limit = limit
        self._on_output = on_output
        self._head = bytearray()
        self._tail = bytearray()
        self._read = self._write = -1
        self.overflowed = False

    def open(self) -> int:
        """Make the pipe and start to listen; the returned end is for the tool."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self._loop.add_reader(self._read, self._on_readable)
        return self._write

    def started(self) -> None:
        """The tool has its end now: close ours, so that its going is seen."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def drain(self) -> None:
        """Take what is in the pipe, without waiting for whoever still holds the other end."""
        while self._on_readable():
            pass

    def head(self) -> bytes:
        return bytes(self._head)

    def tail(self) -> bytes:
        return bytes(self._tail)

    def close(self) -> None:
        self._stop()
        self.started()

    def _on_readable(self) -> bool:
        if self._read < 0:
            return False
        try:
            piece = os.read(self._read, _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            self._stop()
            return False
        self._keep(piece)
        return True

    def _keep(self, piece: bytes) -> None:
        room = self._limit - len(self._head)
        self._head += piece[:room]
        self.overflowed = self.overflowed or len(piece) > room
        self._tail = (self._tail + piece)[-self._limit :]
        if self._on_output is not None:
            self._on_output(piece)

    def _stop(self) -> None:
        if self._read >= 0:
            self._loop.remove_reader(self._read)
            os.close(self._read)
            self._read = -1
