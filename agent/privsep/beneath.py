"""Opening a file beneath a folder, so that no symbolic link, mount trick or `..` leads out of it (openat2)."""

from __future__ import annotations

import ctypes
import os

_SYS_OPENAT2 = 437  # the same number on every architecture
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(dir_fd: int, path: str, flags: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    fd = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(dir_fd),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(fd)


def open_folder(path: str) -> int:
    """A descriptor of an absolute folder none of whose components is a symbolic link. OSError."""
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        return _openat2(top, path.lstrip("/") or ".", flags, _NO_SYMLINKS | _NO_MAGICLINKS | _BENEATH)
    finally:
        os.close(top)


def open_beneath(folder_fd: int, relative: str, flags: int) -> int:
    """Open `relative`, which must stay beneath `folder_fd`. OSError (ELOOP: link, EXDEV: leads out)."""
    # O_NONBLOCK: a fifo put in the file's place must not hang the daemon.
    return _openat2(folder_fd, relative, flags | os.O_NONBLOCK, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
