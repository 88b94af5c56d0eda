"""Whether anybody opens certain files, as the kernel tells it (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from demo.place import DemoFailed

_IN_ACCESS, _IN_OPEN = 0x1, 0x20
_EVENT = struct.Struct("iIII")


class OpenWatch:
    """Counts openings of `paths` from now on; close it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._paths = list(paths)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._names = {}
        for path in paths:
            number = libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_ACCESS | _IN_OPEN)
            if self._fd < 0 or number < 0:
                raise DemoFailed(f"inotify: {os.strerror(ctypes.get_errno())}")
            self._names[number] = path.name

    def opened(self) -> set[str]:
        """Names of the files that were opened since the last call."""
        names: set[str] = set()
        while True:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return names
            at = 0
            while at < len(data):
                number, _, _, length = _EVENT.unpack_from(data, at)
                names.add(self._names[number])
                at += _EVENT.size + length

    def works(self) -> bool:
        """Open each file ourselves, and see that it is noticed."""
        for path in self._paths:
            path.read_bytes()
        return self.opened() == {path.name for path in self._paths}

    def close(self) -> None:
        os.close(self._fd)
