"""What the copy engine is told and what it tells: all sizes and offsets are bytes, all times seconds."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from agent.copying.throttle import Throttle

ALIGN = 4096

Opener = Callable[[int], int]
"""Opens the same thing anew with the given flags of `os.open` and returns the descriptor."""


def by_path(path: Path) -> Opener:
    """Open a file or device by its path; a symbolic link as its last part is refused."""
    return lambda flags: os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)


def by_name(folder_fd: int, name: str) -> Opener:
    """Open a file by its name in an opened folder; a symbolic link is refused."""
    return lambda flags: os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder_fd)


def by_fd(fd: int) -> Opener:
    """Open anew what a descriptor refers to. The descriptor must stay open until the copy has ended."""
    return lambda flags: os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


class Content(Protocol):
    """Bytes that can be read by many threads at once: a file's own, or what a format makes of them."""

    def size(self) -> int:
        """Bytes that it holds."""

    def extents(self, start: int, size: int) -> Iterator[tuple[int, int]]:
        """The ranges (begin, end) between `start` and `size` that hold data, in order; the others read as zeros."""

    def read(self, view: memoryview, offset: int, length: int) -> int:
        """Fill `view` (aligned, with room for whole blocks) from `offset`; returns bytes, less only at the end."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is read: the first `size` bytes of a file or device, or of the content that `inside` finds in it."""

    open: Opener
    size: int
    inside: Callable[[Content], Content] | None = None


@dataclass(frozen=True, slots=True)
class Dest:
    """What is written: `size` bytes of a file (which ends there) or of a device (of at least that size).

    `zeros_skippable` says that places never written read as zeros. It is false for anything encrypted and for
    space that was not proven zero; then every zero of the source is written. The bytes go to `base` (whole blocks)
    and up; what lies before is left alone. `change(view, offset)` may change them in place before they are
    written, in whole sectors: an encryption.
    """

    open: Opener
    size: int
    zeros_skippable: bool = False
    base: int = 0
    change: Callable[[memoryview, int], None] | None = None


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How to copy. `rate_limit` is bytes a second over all workers; None: as fast as it goes.

    `budgets` are limits that it shares with other copies.
    `share_only`: the source may be written to meanwhile, so its data is shared as a whole, or NotShared is raised.
    """

    rate_limit: int | None = None
    budgets: tuple[Throttle, ...] = ()
    workers: int = 2
    chunk: int = 2 << 20
    checkpoint_every: int = 64 << 20
    reflink: bool = True
    share_only: bool = False
    direct: bool = True
    phase: str = "copy"

    def within(self, budget: Throttle) -> CopyOptions:
        """The same, sharing one more limit."""
        return replace(self, budgets=(*self.budgets, budget)) if budget.rate and budget not in self.budgets else self

    def throttle(self) -> Throttle:
        return Throttle(self.rate_limit, self.budgets)

    def slowest(self) -> int | None:
        """The least of all its limits."""
        return min((one.rate for one in (Throttle(self.rate_limit), *self.budgets) if one.rate), default=None)

    def piece_size(self) -> int:
        """Bytes moved at once: small enough that a rate limit holds within a tenth of a second."""
        limit = self.slowest()
        if limit is None:
            return self.chunk
        slow = limit // 20 // ALIGN * ALIGN
        return min(self.chunk, max(16 * ALIGN, slow))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where to go on, and where to note how far it is safe.

    Everything before `start` was durable when it was noted. `save(offset)` is awaited after the data before
    `offset` was synced to the destination.
    """

    start: int
    save: Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """`total` counts what has to be moved (not skipped holes); `eta_s` is None while it can not be told."""

    phase: str
    done: int
    total: int
    rate: float
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class CopyResult:
    """`moved` bytes were read and written now; `direct` says that the page cache was not used for writing."""

    size: int
    moved: int
    reflinked: bool
    direct: bool
    seconds: float
