"""An accepted image as a source of the copy engine: what a guest would read of it, in clear, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

from agent.copying.model import Content, Source, by_fd
from agent.images.disk import Disk
from agent.images.inspect import Inspection
from agent.luks.payload import Payload
from agent.luks.unlock import Opened
from agent.luks.window import whole_file


class Padded:
    """A raw file whose last sector is filled up with zeros."""

    def __init__(self, below: Content, size: int) -> None:
        self._below, self._bytes = below, size

    def size(self) -> int:
        return self._bytes

    def extents(self, start: int, size: int) -> Iterator[tuple[int, int]]:
        return self._below.extents(start, size)

    def read(self, view: memoryview, offset: int, length: int) -> int:
        got = self._below.read(view, offset, length)
        missing = min(length, self._bytes - offset) - got
        if 0 < missing < 512:
            view[got : got + missing] = bytes(missing)
            got += missing
        return got


def source_of(fd: int, found: Inspection, opened: Opened | None) -> Source:
    """The image's clear content; `fd` stays open until the copy has ended."""

    def inside(below: Content) -> Content:
        if found.qcow2 is not None:
            return Disk(whole_file(fd), below, found.qcow2, None if opened is None else opened.cipher())
        if opened is not None:
            return Payload(below, opened)
        return Padded(below, found.virtual_size)

    return Source(by_fd(fd), found.virtual_size, inside)
