"""Reading a foreign file without trusting it: bounded reads inside of a fixed window of a file descriptor."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from agent.luks.errors import Truncated

MAX_READ = 32 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """The bytes `start .. start+length` of `fd`; offsets are relative to `start`. Never moves the file position.

    `head` is read in place of the first bytes: a header whose magic is yet to be written.
    """

    fd: int
    start: int
    length: int
    head: bytes = b""

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes at `offset`; fewer at the end of the window, none outside of it."""
        if offset < 0 or count < 0 or count > MAX_READ:
            raise Truncated
        wanted = max(0, min(count, self.length - offset))
        begin, parts = offset, list[bytes]()
        while wanted > 0:
            part = os.pread(self.fd, wanted, self.start + offset)
            if not part:
                break
            parts.append(part)
            offset, wanted = offset + len(part), wanted - len(part)
        data = b"".join(parts)
        return self._headed(data, begin) if begin < len(self.head) else data

    def _headed(self, data: bytes, offset: int) -> bytes:
        head = self.head[offset:][: len(data)]
        return head + data[len(head) :]

    def exact(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes at `offset`; raises Truncated when the window holds fewer."""
        data = self.read(offset, count)
        if len(data) != count:
            raise Truncated
        return data

    def part(self, offset: int, length: int) -> Window:
        """A window inside of this one; raises Truncated when it would reach outside."""
        if offset < 0 or length < 0 or offset + length > self.length:
            raise Truncated
        return Window(self.fd, self.start + offset, length)


def whole_file(fd: int) -> Window:
    """A window over a complete regular file or block device."""
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode):
        return Window(fd, 0, info.st_size)
    if stat.S_ISBLK(info.st_mode):
        return Window(fd, 0, os.lseek(fd, 0, os.SEEK_END))
    raise Truncated
