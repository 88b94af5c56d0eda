"""The one interface between volumes and whichever compute service uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import aiohttp

Use = Literal["gone", "elsewhere", "in-use"]
"""Of an attachment: server or attachment are not there; the server has the volume by another one; by this one."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a notice: the servers that know of it, and why others do not."""

    done: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        """As a step keeps it."""
        return {"told": list(self.done), "refused": dict(self.refused)}


class Compute(Protocol):
    """Every call has a deadline of its own and may be repeated."""

    @property
    def completion_deadline_s(self) -> float | None:
        """Seconds that a server gets to enlarge a volume by itself; None when none is asked to."""
        ...

    async def volume_extended(self, servers: Sequence[str], volume_id: str) -> Told:
        """Tell that the volume is larger now; never raises for what the other side says or does not say."""
        ...

    async def volume_reimaged(self, servers: Sequence[str], volume_id: str) -> Told:
        """Tell that the volume has its new content."""
        ...

    async def extend_volume(self, server: str, volume_id: str) -> None:
        """Ask a server to enlarge the volume and to call back; ComputeAway, ComputeRefused, ComputeTooOld."""
        ...

    async def use(self, server: str, volume_id: str, attachment_id: str) -> Use:
        """What becomes of an attachment there; raises ComputeAway, ComputeRefused."""
        ...

    async def close(self) -> None:
        """No call will follow."""
        ...


class Login(Protocol):
    """Who we are for the compute service, and where it is (`coordinator.identity.service_user`)."""

    async def token(self, *, fresh: bool = False) -> str: ...
    async def endpoint(self, types: Sequence[str], interface: str, region: str | None) -> str: ...
    def session(self) -> aiohttp.ClientSession: ...
    async def close(self) -> None: ...
