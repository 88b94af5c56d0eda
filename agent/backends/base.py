"""What every back end can do. Sizes are bytes, ids canonical UUIDs.

Every verb may be called again after a kill at any moment: "already so" is success, and a half-made thing is never
seen under its final name. One volume is worked on by one caller at a time (the caller holds its resource lock).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from agent.copying.model import Checkpoint, CopyOptions, CopyProgress
from agent.wire.results import RbdAccess

Kind = Literal["volume", "snapshot", "leftover"]


@dataclass(frozen=True, slots=True)
class PoolState:
    """Field by field what the wire calls a pool, less the back end's name."""

    name: str
    driver: str
    total_bytes: int
    free_bytes: int
    allocated_bytes: int
    byte_granular: bool
    thin: bool
    reflink: bool
    multiattach: bool = True
    protocols: tuple[str, ...] = ("local",)
    thick: bool = False
    reserved_percent: int = 0
    max_over_subscription: float | Literal["auto"] = 20.0
    capabilities: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    filter_function: str = ""
    goodness_function: str = ""
    data_percent: float | None = None
    metadata_percent: float | None = None
    cluster_name: str | None = None
    image_cache: bool = False
    image_cache_max_gib: int = 0
    image_cache_max_count: int = 0
    foreign_bytes: int = 0
    rbd: RbdAccess | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """One thing that a back end holds; `allocated_bytes` is what it takes up now. A `leftover` is half-made."""

    kind: Kind
    id: str
    device_bytes: int
    allocated_bytes: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a back end; `code` is stable, `since` is epoch seconds."""

    code: str
    message: str
    remedy: str
    since: float


@dataclass(frozen=True, slots=True)
class CloneSource:
    """A volume or a snapshot of the same back end."""

    kind: Literal["volume", "snapshot"]
    id: str


def _ignore(_: CopyProgress) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Work:
    """How a long verb is steered and watched; the default is an uninterrupted copy that nobody watches.

    `begun`: an earlier run of the same work has noted how far it came.
    """

    options: CopyOptions = field(default_factory=CopyOptions)
    progress: Callable[[CopyProgress], None] = _ignore
    checkpoint: Checkpoint | None = None
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    begun: bool = False


class Backend(Protocol):
    """A named place where volumes live."""

    @property
    def name(self) -> str: ...

    async def pools(self) -> tuple[PoolState, ...]:
        """Each part with a capacity of its own."""

    async def create(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        """An empty volume that reads as zeros."""

    async def prepare(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        """A half-made volume of that size to be filled, zeros at first; one of an earlier try keeps what it holds.

        Its bytes may lie in a device that is a little larger.
        """

    async def prepared(self, volume_id: str) -> int | None:
        """Size of a half-made volume, None when there is none: then a checkpoint of it must not be believed."""

    async def publish(self, volume_id: str) -> None:
        """The prepared volume is whole: make it durable and give it its name."""

    async def discard(self, volume_id: str) -> None:
        """Drop a prepared volume."""

    async def clone(self, volume_id: str, device_bytes: int, source: CloneSource, work: Work | None = None) -> None:
        """A volume with the content of `source`, zeros behind it."""

    async def extend(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        """Make the volume larger; the new part reads as zeros."""

    async def delete(self, volume_id: str, work: Work | None = None) -> None:
        """Remove the volume and what is half-made of it."""

    async def snapshot(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        """Keep the volume's content as it is now; returns its size."""

    async def delete_snapshot(self, snapshot_id: str, work: Work | None = None) -> None:
        """Remove the snapshot and what is half-made of it."""

    async def size(self, volume_id: str) -> int | None:
        """The size of a volume that is there, else None."""

    async def path(self, volume_id: str) -> Path:
        """Where the volume can be opened; VolumeNotFound when it is not there."""

    async def source_path(self, source: CloneSource) -> Path:
        """Where the source of a clone can be read; VolumeNotFound when it is not there."""

    async def holders(self, volume_id: str, *, writers: bool) -> list[str]:
        """What the kernel shows to use the volume, for people; with `writers` only what may write to it."""

    async def inventory(self) -> list[Held]:
        """All that is held."""

    async def issues(self) -> list[Trouble]:
        """What a person should know about it now, each with a remedy."""

    def close(self) -> None:
        """Let go of descriptors."""
