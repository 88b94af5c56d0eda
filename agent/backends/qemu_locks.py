"""The locks by which QEMU's processes agree on who may do what with an image file (its `block/file-posix.c`).

For each right that a process does not share with others it holds a read lock on byte 200 + the right's number.
"""

from __future__ import annotations

import fcntl
import os
import struct

_UNSHARED, _RESIZE = 200, 3
_FLOCK = "hhqqi0q"


def may_resize(fd: int) -> bool:
    """Whether nobody has said that others must not resize the file. Blocking on a share; `fd` is open for writing."""
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _UNSHARED + _RESIZE, 1, 0)
    found = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted))
    return bool(found[0] == fcntl.F_UNLCK)
