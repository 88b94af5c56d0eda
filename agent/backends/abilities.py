"""What some back ends can do besides, or can not: go back to a snapshot, take a new content, adopt, make devices.

Each is a protocol of its own that is asked for with `isinstance`; a back end that lacks one is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from agent.backends.base import Backend, Work
from agent.backends.errors import CanNot, Luks1Alone, OnlyInCluster
from agent.copying.model import CopyOptions
from agent.copying.throttle import Throttle
from agent.wire.jobs import Connection


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something in the back end's reach that it does not manage. `reason` says why it is not safe to adopt.

    `source` of a snapshot is the name of what it is a snapshot of.
    """

    kind: Literal["volume", "snapshot"]
    name: str
    size_bytes: int
    reason: str = ""
    source: str = ""


@runtime_checkable
class Reverting(Protocol):
    async def revert(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        """Give the volume the content of its snapshot, at once or not at all; returns its size."""


@runtime_checkable
class Replacing(Protocol):
    async def prepare_anew(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        """Like `prepare`, beside a volume that is there; one of an earlier try keeps what it holds."""

    async def replace(self, volume_id: str) -> None:
        """Put the prepared content in the place of the volume's, at once. Nothing prepared: it was done before."""


@runtime_checkable
class Limited(Protocol):
    """All that is copied to it shares one limit; its own verbs mind that themselves."""

    budget: Throttle


def within_limits(options: CopyOptions, backend: Backend) -> CopyOptions:
    """For what others write to its volumes."""
    return options.within(backend.budget) if isinstance(backend, Limited) else options


@runtime_checkable
class Adopting(Protocol):
    async def foreign(self) -> list[Foreign]:
        """What could be adopted, and what could not with the reason."""

    async def adopt(self, kind: Literal["volume", "snapshot"], new_id: str, name: str, device_bytes: int) -> None:
        """Take `name`, of that size, in under `new_id`, without a copy. Once more is fine."""

    async def release(
        self, kind: Literal["volume", "snapshot"], old_id: str, source: str = "", *, name: str = ""
    ) -> str:
        """Let it go with its data, as something foreign; returns its name, which is `name` where that is given.

        `source`: the snapshot's volume.
        """


@runtime_checkable
class InCluster(Protocol):
    def cluster_image(self, volume_id: str) -> str:
        """What the clients of the cluster call the volume."""

    async def reached(self, volume_id: str, *, read_only: bool) -> Connection:
        """How the kernel of any host that has a key of the cluster reaches the volume; this host lets go of it."""


IN_CLUSTER = "rbd"
"""The protocol by which the cluster itself offers its images: no target of this host takes part."""


def with_devices(backend: Backend, volume_id: str) -> Backend:
    """The back end as one whose volumes become devices of this host; raises OnlyInCluster (409).

    A file that shows an image goes after a minute in which the agent has not used it: no device may lie on it.
    """
    if isinstance(backend, InCluster):
        raise OnlyInCluster(id=volume_id, backend=backend.name, image=backend.cluster_image(volume_id))
    return backend


def in_cluster(backend: Backend) -> InCluster:
    """The back end as one whose cluster offers its volumes by IN_CLUSTER; raises CanNot (400)."""
    if not isinstance(backend, InCluster):
        raise CanNot(backend=backend.name, what=f"offer a volume by {IN_CLUSTER}")
    return backend


def check_encryption(backend: Backend, luks: Literal["luks1", "luks2"]) -> None:
    """Refuse to make a volume there that whoever it is offered to could not open; raises Luks1Alone (400)."""
    if isinstance(backend, InCluster) and luks != "luks1":
        raise Luks1Alone(backend=backend.name)


def reverting(backend: Backend) -> Reverting:
    """The back end as one that can go back to a snapshot; raises CanNot (400)."""
    if not isinstance(backend, Reverting):
        raise CanNot(backend=backend.name, what="revert a volume to a snapshot")
    return backend


def replacing(backend: Backend) -> Replacing:
    """The back end as one that can give a volume a new content; raises CanNot (400)."""
    if not isinstance(backend, Replacing):
        raise CanNot(backend=backend.name, what="replace the content of a volume")
    return backend


def adopting(backend: Backend) -> Adopting:
    """The back end as one that can take in and let go; raises CanNot (400)."""
    if not isinstance(backend, Adopting):
        raise CanNot(backend=backend.name, what="manage what others made, or let go of what it has")
    return backend
