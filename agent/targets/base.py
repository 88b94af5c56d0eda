"""What every target can do: offer one volume of this host to named consumers, by one protocol.

A target is told the complete set of consumers of a volume and makes it so; told the same again, also after a kill, it
changes nothing. One volume is worked on by one caller at a time (the caller holds its resource lock).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from agent.wire.jobs import Connection


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who may use a volume. `username` and `secret` for CHAP; None: the initiator's name is enough."""

    attachment_id: str
    initiator: str
    mode: Literal["rw", "ro"] = "rw"
    username: str = ""
    secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Offered:
    """What the kernel shows of a volume's export: who may use it, by which target, who does, and whether it works.

    `targets` is by initiator; `connected` None: the kernel does not tell.
    """

    targets: Mapping[str, str]
    ready: bool
    initiators: frozenset[str]
    connected: frozenset[str] | None


class Target(Protocol):
    """One way to offer volumes. `modules`: what the kernel must have loaded for it."""

    protocol: str
    modules: tuple[str, ...]

    async def apply(self, volume_id: str, path: Path, consumers: Sequence[Consumer]) -> Mapping[str, Connection]:
        """Offer the volume at `path` (a file or a block device) to exactly these; by attachment how each reaches it."""

    async def withdraw(self, volume_id: str) -> bool:
        """Offer it to nobody and let go of its device, sessions or not; False when nothing was there."""

    async def grow(self, volume_id: str, size: int) -> None:
        """The volume has `size` bytes now: let consumers see it when they look again."""

    def offered(self) -> Mapping[str, Offered]:
        """By volume what the kernel shows. Blocking reads."""
