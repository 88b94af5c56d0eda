"""Locks of the privileged side that end with the process that holds them, not before: open file description locks.

What outlives its agent inside the kernel, a connect above all, still has its lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import threading

from agent.privsep.errors import KernelRefused

WAIT_S = 150.0  # longer than the kernel tries to reach somebody, shorter than callers wait for a verb


def lock(fd: int, name: str, kind: int) -> None:
    """Have the lock of that name, `kind` F_WRLCK or F_RDLCK, on an open file. KernelRefused: who has it keeps it."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") >> 1
    wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except BlockingIOError:
        # The kernel knows no such wait with an end. Given up, the thread has the file for itself: it gets the lock some
        # day, and loses it with the file at once. A verb that did its work then would do it to a later attach.
        waiting = threading.Thread(target=fcntl.fcntl, args=(fd, fcntl.F_OFD_SETLKW, wanted), daemon=True)
        waiting.start()
        waiting.join(WAIT_S)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
        except BlockingIOError:
            reason = "another connect or disconnect of it does not end"
            raise KernelRefused(action="lock", device=name, reason=reason) from None
