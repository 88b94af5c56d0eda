"""Bytes of a header put where they belong, each durable before the next one is begun."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from agent.copying.errors import translated


@dataclass(frozen=True, slots=True)
class Put:
    """`data` at byte `offset` of the file or device."""

    offset: int
    data: bytes = field(repr=False)


def put(fd: int, *parts: Put) -> None:
    """Write the parts, then sync once. Blocking; raises DestinationFull and its kin."""
    try:
        for part in parts:
            view, offset = memoryview(part.data), part.offset
            while view:
                count = os.pwrite(fd, view, offset)
                view, offset = view[count:], offset + count
        os.fsync(fd)
    except OSError as failure:
        raise translated(failure, "destination") from failure
