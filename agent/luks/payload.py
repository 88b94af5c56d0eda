"""The clear content of an opened LUKS container, as the copy engine reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.copying.model import Content
from agent.luks.unlock import Opened


class Payload:
    """All of it is data: what was never written is noise to its reader, but it is what the container holds."""

    def __init__(self, below: Content, opened: Opened) -> None:
        self._below, self._cipher = below, opened.cipher()
        details = opened.header.details
        self._offset, self._bytes = details.payload_offset, details.payload_bytes

    def size(self) -> int:
        return self._bytes

    def extents(self, start: int, size: int) -> Iterator[tuple[int, int]]:
        if start < size:
            yield start, size

    def read(self, view: memoryview, offset: int, length: int) -> int:
        got = self._below.read(view, self._offset + offset, length)
        if got == length:
            self._cipher.decrypt(view[:length], offset // 512)
        return got


def payload(opened: Opened) -> Callable[[Content], Content]:
    return lambda below: Payload(below, opened)


def encrypting(opened: Opened) -> Callable[[memoryview, int], None]:
    """Changes clear bytes into those that the container holds at that offset of its payload, in place."""
    cipher = opened.cipher()
    return lambda view, offset: cipher.encrypt(view, offset // 512)
