"""Files that must be whole or not there: keys, certificates, tickets; and room for what is to be written."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step that survives a power cut (temp, fsync, rename, fsync of the folder)."""
    temp = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temp.rename(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames and removals in this folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(fd: int, count: int) -> None:
    """Have room for the first bytes of a file, which keeps what it holds. OSError, EOPNOTSUPP where it can not be said.

    `os.posix_fallocate` would then write into each block: thousands of round trips to where an image really lies.
    """
    while _libc.fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(count)):
        if (number := ctypes.get_errno()) != errno.EINTR:
            raise OSError(number, os.strerror(number))
