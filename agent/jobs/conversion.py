"""What making volumes from images needs: room for bytes on their way, limits, and a way to fetch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.wire.jobs import TransferRef

if TYPE_CHECKING:
    from agent.images.config import ImagesConfig
    from agent.images.spool import Spool

Fetch = Callable[[TransferRef, int, int, Callable[[int], None]], Awaitable[int]]
"""Fetch a transfer of at most so many bytes into a descriptor; told how far it has come; returns its size."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """`spool` is for bytes as they are in an image; clear bytes of encrypted ones are never kept anywhere."""

    spool: Spool
    config: ImagesConfig
    fetch: Fetch
