"""What a conversion of an image is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.copying.model import CopyOptions, CopyProgress
from agent.images.inspect import DEFAULT, Declared, Inspection, Limits
from agent.luks.container import create
from agent.luks.model import Format, Secret, device_bytes, iterations_for
from agent.luks.unlock import Opened


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image's open file, what it was declared to be, and its secret when it is encrypted."""

    fd: int
    declared: Declared
    secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The half-made file, the bytes a user gets, and how they are encrypted (both None for a plain volume)."""

    path: Path
    usable: int
    encryption: Format | None = None
    secret: Secret | None = None

    @property
    def size(self) -> int:
        return device_bytes(self.usable, self.encryption)


@dataclass(frozen=True, slots=True)
class Watch:
    """How a conversion is followed, ended and bounded (the limits of `options`)."""

    report: Callable[[CopyProgress], None]
    cancel: asyncio.Event
    phase: str = "convert"
    options: CopyOptions = field(default_factory=CopyOptions)


@dataclass(frozen=True, slots=True)
class Means:
    """What a conversion may use."""

    limits: Limits = DEFAULT
    passphrase_iterations: int = 2_000_000


@dataclass(frozen=True, slots=True)
class Work:
    """A conversion under way: `opened` is the image's LUKS, `fd` the half-made file."""

    image: OpenedImage
    found: Inspection
    opened: Opened | None
    target: Target
    fd: int
    means: Means
    watch: Watch


def new_header(work: Work, fmt: Format, master: bytes | None = None) -> Opened:
    """A hidden header for the volume, whose slot costs what its image's did. Blocking, takes seconds."""
    assert work.target.secret is not None
    theirs = None if work.opened is None else work.opened.iterations
    iterations = iterations_for(work.target.secret, theirs, work.means.passphrase_iterations)
    return create(work.fd, fmt, work.target.secret, iterations=iterations, master=master)
