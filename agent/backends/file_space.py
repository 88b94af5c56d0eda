"""What a folder's file system has and what of it is promised to files, known without a scan.

Whoever changes files says so (`changing`); a scan that nothing disturbed counts anew, as files may go by other hands.
All of it blocks. Callers: `agent.backends.file_tree`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from agent.backends.base import Held
from agent.backends.config import FolderConfig
from agent.backends.errors import OverSubscribed
from agent.wire.results import ratio_in_force


class FileSpace:
    """Of one back end; `root_fd` is a descriptor of its folder, `scan` lists what lies there."""

    def __init__(self, name: str, config: FolderConfig, root_fd: int, scan: Callable[[], list[Held]]) -> None:
        self._name, self._config, self._root_fd, self._scan = name, config, root_fd, scan
        self._lock = threading.Lock()
        self._changes = self._changing_now = 0
        self.promised = _sum(scan())
        """Bytes of all volumes and snapshots, as if each were full."""

    def capacity(self) -> tuple[int, int]:
        """Bytes of the file system, and of them free for us."""
        found = os.fstatvfs(self._root_fd)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def check(self, more: int) -> None:
        """Raise OverSubscribed when so many bytes more are not to be promised."""
        total, free = self.capacity()
        wanted = self._config.max_over_subscription
        ratio = ratio_in_force(wanted, total=total, free=free, promised=self.promised)
        limit = int((total - total * self._config.reserved_percent // 100) * ratio)
        if self.promised + more > limit:
            raise OverSubscribed(backend=self._name, allocated=self.promised, limit=limit, need=more)

    @contextlib.contextmanager
    def changing(self) -> Iterator[Callable[[int], None]]:
        """Around each change of files and of the promised sum, so that a scan knows whether the two agree."""

        def promise(more: int) -> None:
            with self._lock:
                self.promised += more

        with self._lock:
            self._changes += 1
            self._changing_now += 1
        try:
            yield promise
        finally:
            with self._lock:
                self._changing_now -= 1

    def inventory(self) -> list[Held]:
        """Scan, and count what is promised anew."""
        with self._lock:
            before = None if self._changing_now else self._changes
        found = self._scan()
        with self._lock:
            if self._changes == before:
                self.promised = _sum(found)
        return found


def _sum(found: list[Held]) -> int:
    return sum(held.device_bytes for held in found if held.kind != "leftover")
