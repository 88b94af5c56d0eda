"""What making volumes from images needs: room for bytes on their way, limits, and a way to fetch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.wire.jobs import TransferRef

if TYPE_CHECKING:
    from agent.images.config import ImagesConfig
    from agent.images.spool import MemorySpool, Spool

Fetch = Callable[[TransferRef, int, int, Callable[[int], None]], Awaitable[int]]
"""Fetch a transfer of at most so many bytes into a descriptor; told how far it has come; returns its size."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """`spool` is a folder; `memory` takes the clear images of encrypted volumes, whose bytes must not touch a disk."""

    spool: Spool
    memory: MemorySpool
    config: ImagesConfig
    fetch: Fetch
