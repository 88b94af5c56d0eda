"""A guest at a vhost-scsi endpoint: what QEMU tells the kernel of it, and what its driver puts into a queue."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager

MIB = 1 << 20
_QUEUE, _SIZE = 2, 8  # the first queue of requests, after those of control and of events; its descriptors
_AVAILABLE, _USED, _HEADER, _RESPONSE, _DATA = 0x400, 0x800, 0xC00, 0xE00, 0x1000
_BLOCK, _GOOD, _ATTENTION = 512, 0, 6
_VERSION_1 = 1 << 32
_SECONDS = 120


def _ioctl(number: int, size: int, *, write: bool = True) -> int:
    """An ioctl of vhost, as <linux/vhost.h> counts them."""
    return (int(write) << 30) | (size << 16) | (0xAF << 8) | number


class Guest:
    """One that has the endpoint open; its memory is one piece, at the addresses that this process knows."""

    def __init__(self, wwpn: str) -> None:
        self._memory = mmap.mmap(-1, _DATA + MIB)
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._fd = os.open("/dev/vhost-scsi", os.O_RDWR | os.O_CLOEXEC)
        self._kick, self._call = os.eventfd(0), os.eventfd(0)
        self._told = 0
        try:
            self._ready(wwpn)
        except BaseException:
            self.close()
            raise

    def _ready(self, wwpn: str) -> None:
        fcntl.ioctl(self._fd, _ioctl(0x01, 0, write=False))
        fcntl.ioctl(self._fd, _ioctl(0x00, 8), struct.pack("<Q", _VERSION_1))
        region = struct.pack("<QQQQ", self._at, len(self._memory), self._at, 0)
        fcntl.ioctl(self._fd, _ioctl(0x03, 8), struct.pack("<II", 1, 0) + region)
        fcntl.ioctl(self._fd, _ioctl(0x10, 8), struct.pack("<II", _QUEUE, _SIZE))
        fcntl.ioctl(self._fd, _ioctl(0x12, 8), struct.pack("<II", _QUEUE, 0))
        places = (self._at, self._at + _USED, self._at + _AVAILABLE, 0)
        fcntl.ioctl(self._fd, _ioctl(0x11, 40), struct.pack("<IIQQQQ", _QUEUE, 0, *places))
        for number, fd in ((0x20, self._kick), (0x21, self._call)):
            fcntl.ioctl(self._fd, _ioctl(number, 8), struct.pack("<Ii", _QUEUE, fd))
        fcntl.ioctl(self._fd, _ioctl(0x40, 232), struct.pack("<i224sHH", 1, wwpn.encode(), 1, 0))

    def close(self) -> None:
        for fd in (self._fd, self._kick, self._call):
            os.close(fd)

    def write(self, block: int, content: bytes) -> None:
        self._memory[_DATA : _DATA + len(content)] = content
        self._done(struct.pack(">BBQIBB", 0x8A, 0, block, len(content) // _BLOCK, 0, 0), out=len(content))

    def read(self, block: int, length: int) -> bytes:
        return self._done(struct.pack(">BBQIBB", 0x88, 0, block, length // _BLOCK, 0, 0), back=length)

    def size(self) -> int:
        last, block = struct.unpack(">QI", self._done(struct.pack(">BBQIBB", 0x9E, 0x10, 0, 32, 0, 0), back=32)[:12])
        return int((last + 1) * block)

    def serial(self) -> str:
        """The unit serial number (page 80h)."""
        page = self._done(struct.pack(">BBBHB", 0x12, 1, 0x80, 255, 0), back=255)
        return page[4 : 4 + page[3]].rstrip(b"\0").decode()

    def _done(self, command: bytes, *, out: int = 0, back: int = 0) -> bytes:
        """What came back of a command that succeeded; told again after the news that a new device has."""
        for _ in range(4):
            self._order(command, out, back)
            length, _, _, status, answer = struct.unpack_from("<IIHBB", self._memory, _RESPONSE)
            sense = self._memory[_RESPONSE + 12 : _RESPONSE + 12 + length]
            if (answer, status) == (0, _GOOD):
                return self._memory[_DATA : _DATA + back]
            assert answer == 0, f"the kernel answers {answer}: no such LUN"
            assert sense[2] & 15 == _ATTENTION, f"status {status}, sense {sense.hex()}"
        raise AssertionError("news without end")

    def _order(self, command: bytes, out: int, back: int) -> None:
        lun = bytes((1, 1, 0x40, 0, 0, 0, 0, 0))  # of the portal group 1, LUN 0
        struct.pack_into("<8sQBBB32s", self._memory, _HEADER, lun, self._told, 0, 0, 0, command)
        chain = [
            (_HEADER, 51, 0), *([(_DATA, out, 0)] if out else []), (_RESPONSE, 108, 2),
            *([(_DATA, back, 2)] if back else []),
        ]  # fmt: skip
        for number, (place, length, flags) in enumerate(chain):
            more = number + 1 < len(chain)
            fields = (self._at + place, length, flags | int(more), number + 1 if more else 0)
            struct.pack_into("<QIHH", self._memory, 16 * number, *fields)
        struct.pack_into("<H", self._memory, _AVAILABLE + 4 + 2 * (self._told % _SIZE), 0)
        self._told += 1
        struct.pack_into("<H", self._memory, _AVAILABLE + 2, self._told & 0xFFFF)
        os.eventfd_write(self._kick, 1)
        while struct.unpack_from("<H", self._memory, _USED + 2)[0] != self._told & 0xFFFF:
            assert select.select([self._call], [], [], _SECONDS)[0], "the kernel does not answer"
            os.eventfd_read(self._call)


@contextmanager
def opened(wwpn: str) -> Iterator[Guest]:
    """A guest runs that has this endpoint."""
    guest = Guest(wwpn)
    try:
        yield guest
    finally:
        guest.close()
