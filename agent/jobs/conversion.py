"""What making volumes from images needs: room for bytes on their way, limits, and a way to fetch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.wire.jobs import TransferRef

if TYPE_CHECKING:
    from agent.images.config import ImagesConfig
    from agent.images.spool import MemorySpool, Spool

Fetch = Callable[[TransferRef, int, int, Callable[[int], None]], Awaitable[None]]
"""Fetch a transfer of so many bytes into a descriptor (from its start, in order); told how far it has come."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """`spool` for bytes as they are in an image, `memory` for clear bytes of encrypted ones."""

    spool: Spool
    memory: MemorySpool
    config: ImagesConfig
    fetch: Fetch
