"""One folder of a file back end: plain files named by ids, reached through the folder's descriptor alone."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from agent.backends.base import Held, Kind
from agent.base.ids import is_id, new_id
from agent.copying.files import reflink

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_PROBE, _OLD_S = ".probe", 60.0


class Folder:
    """Blocking calls; names are validated by the caller. A name that is not a regular file is refused (EPERM)."""

    def __init__(self, root_fd: int, name: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=root_fd)
        self.name = name
        self.fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)

    @contextlib.contextmanager
    def opened(self, name: str, flags: int) -> Iterator[int]:
        fd = os.open(name, flags | _FLAGS, 0o600, dir_fd=self.fd)
        try:
            _regular(os.fstat(fd).st_mode)
            yield fd
        finally:
            os.close(fd)

    def status(self, name: str) -> os.stat_result | None:
        """None when there is no such file."""
        try:
            found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        _regular(found.st_mode)
        return found

    def size(self, name: str) -> int | None:
        found = self.status(name)
        return None if found is None else found.st_size

    def names(self) -> list[str]:
        # Opened anew: two readers of one descriptor share its position, and each sees only a part.
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return sorted(os.listdir(fd))  # noqa: PTH208  there is no Path, only the descriptor
        finally:
            os.close(fd)

    def move(self, name: str, to: Folder) -> None:
        """Rename into the other folder; durable after `to.sync()`."""
        os.rename(name, name, src_dir_fd=self.fd, dst_dir_fd=to.fd)

    def held(self, kind: Kind) -> list[Held]:
        """All that lies here; what is not named by an id is a leftover."""
        found: list[Held] = []
        for name in self.names():
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
                found.append(Held(kind if is_id(name) else "leftover", name, status.st_size, status.st_blocks * 512))
        return found

    def remove(self, name: str) -> int | None:
        """Remove a file; returns its size, None when there was none. Durable after `sync()`."""
        size = self.size(name)
        if size is not None:
            os.unlink(name, dir_fd=self.fd)
        return size

    def sync(self) -> None:
        os.fsync(self.fd)

    def close(self) -> None:
        os.close(self.fd)


def open_root(path: Path) -> int:
    """The descriptor of the back end's folder, which is made when it does not exist."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def can_reflink(folder: Folder) -> bool:
    """Whether two files of this file system can share data, found out by doing it.

    Each has a name of its own: on SMB the name of a file that is deleted while it is open is taken until it is closed,
    and other hosts may be asking in the same folder.
    """
    for left in folder.names():
        if left.startswith(_PROBE):
            with contextlib.suppress(OSError):
                _remove_old(folder, left)
    with _nameless(folder) as first, _nameless(folder) as second:
        os.write(first, b"\1" * 4096)
        return reflink(first, second)


def _remove_old(folder: Folder, name: str) -> None:
    """A younger one may be another host's, which it is about to delete."""
    if time.time() - os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mtime > _OLD_S:
        os.unlink(name, dir_fd=folder.fd)


@contextlib.contextmanager
def _nameless(folder: Folder) -> Iterator[int]:
    name = f"{_PROBE}-{new_id()}"
    with folder.opened(name, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder.fd)
        yield fd


def _regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise PermissionError(1, "something that is not a plain file lies in the folder")
