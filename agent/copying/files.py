"""One side of a copy: direct I/O where the file system lets us, else through the page cache."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from agent.copying.extents import extents
from agent.copying.model import ALIGN, Opener

_FICLONE = 0x40049409
_NOT_HERE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY, errno.EBADF}


class Side:
    """An opened source or destination. `plain` goes through the page cache; safe to use from many threads."""

    def __init__(self, opener: Opener, access: int, *, direct: bool) -> None:
        self.plain = opener(access)
        self._direct = -1
        self._retired: list[int] = []
        if direct:
            # Some file systems (tmpfs of older kernels, many in user space) refuse the flag itself.
            with contextlib.suppress(OSError):
                self._direct = opener(access | os.O_DIRECT)

    @property
    def direct(self) -> bool:
        return self._direct >= 0

    def is_file(self) -> bool:
        return stat.S_ISREG(os.fstat(self.plain).st_mode)

    def size(self) -> int:
        """Bytes that it holds, also for a device."""
        return os.lseek(self.plain, 0, os.SEEK_END)

    def extents(self, start: int, size: int) -> Iterator[tuple[int, int]]:
        """See `extents.extents`."""
        return extents(self.plain, start, size)

    def read(self, view: memoryview, offset: int, length: int) -> int:
        """Fill `view` (aligned, with room for whole blocks) from `offset`; returns bytes, less only at the end."""
        got = 0
        room = -(-length // ALIGN) * ALIGN
        while got < length:
            count = self._read_some(view[got:room], offset + got)
            if count == 0:
                break
            got += count
        return min(got, length)

    def write(self, view: memoryview, offset: int) -> None:
        """Write all of `view` (aligned) at `offset`; a tail that is no whole block goes through the page cache."""
        whole = len(view) // ALIGN * ALIGN
        done = 0
        while done < len(view):
            direct = self._direct
            if direct >= 0 and (offset + done) % ALIGN == 0 and done < whole:
                try:
                    done += os.pwritev(direct, [view[done:whole]], offset + done)
                except OSError as failure:
                    self._give_up_direct(direct, failure)
            else:
                done += os.pwritev(self.plain, [view[done:]], offset + done)

    def _read_some(self, view: memoryview, offset: int) -> int:
        direct = self._direct
        if direct >= 0 and offset % ALIGN == 0:
            try:
                return os.preadv(direct, [view], offset)
            except OSError as failure:
                self._give_up_direct(direct, failure)
        return os.preadv(self.plain, [view], offset)

    def _give_up_direct(self, fd: int, failure: OSError) -> None:
        """Go on through the page cache where alignment is refused; others may use the descriptor, so it stays."""
        if failure.errno != errno.EINVAL:
            raise failure
        self._retired.append(fd)
        self._direct = -1

    def close(self) -> None:
        for fd in {self.plain, self._direct, *self._retired} - {-1}:
            os.close(fd)
        self.plain = self._direct = -1
        self._retired.clear()


def reflink(source_fd: int, dest_fd: int) -> bool:
    """Let `dest_fd` share all data of `source_fd`; false where these two can not share (OSError when full)."""
    try:
        fcntl.ioctl(dest_fd, _FICLONE, source_fd)
    except OSError as failure:
        if failure.errno in _NOT_HERE:
            return False
        raise
    return True
