"""What every connector to another host's volume can do: reach it, prove that it is the right one, let go of it.

A connector is told how a volume is reached (`Connection`) and keeps nothing of its own: what is attached is read from
the kernel each time. Attach and detach may be repeated, also after a kill, and pick up where they were interrupted.
Calls for one attachment come one at a time; calls for different ones come together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from agent.host import sysfs
from agent.wire.jobs import Connection

DEADLINE = 120.0


@dataclass(frozen=True, slots=True)
class RemoteDevice:
    """`name` is the kernel's (`sda`, `dm-3`), of the device that gathers all `paths` (names, too). Bytes.

    `how` is what a person may want to know of the way in which it was reached; empty: nothing.
    """

    name: str
    size: int
    diskseq: int | None
    read_only: bool
    paths: tuple[str, ...]
    how: str = ""

    @property
    def device(self) -> str:
        return f"/dev/{self.name}"


class Connector(Protocol):
    """One way to reach a volume of another host."""

    protocol: str

    async def attach(
        self, connection: Connection, *, secret: bytes | None = None, deadline: float = DEADLINE
    ) -> RemoteDevice:
        """Reach the volume and prove that it is the one. DeviceMismatch, DeviceNotReady, NoPath, LoginRefused, …"""

    async def detach(self, connection: Connection, *, deadline: float = DEADLINE) -> bool:
        """Flush and remove everything of it from this host, sessions that nothing else uses included.

        False when nothing was there. DetachIncomplete names what is left; a refused detach leaves the device usable.
        """

    async def resize(self, connection: Connection, size: int) -> RemoteDevice:
        """Let every path, then the device over them, follow to `size` bytes. PathDown, NotAttached, DeviceMismatch."""

    def present(self, connection: Connection, sys: Path = sysfs.SYS) -> RemoteDevice | None:
        """The device as sysfs shows it, when it is there and says what was promised. Blocking reads, no effects."""


@runtime_checkable
class Cutting(Protocol):
    """A connector that can take a device away from who has it open; `detach` does the rest."""

    async def cut(self, connection: Connection) -> bool:
        """What is read and written from now on fails; False when nothing was there. KernelRefused, DeviceHeld."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a device in use has shown; nothing at all when it is not there. Sentences are for people.

    `paths`: the kernel's names of all that it stands on. `wrong`: it is not what was promised any more. `down`: paths
    that do not work, and that the kernel tries again. `missing`: paths that nothing tries but `Watched.mend`.
    """

    paths: tuple[str, ...] = ()
    size: int = 0
    wrong: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@runtime_checkable
class Watched(Protocol):
    """A connector whose devices can be looked at while they are used."""

    async def look(self, connection: Connection, *, afresh: bool = False) -> Look:
        """How the device is. With `afresh` every path that answers is asked who it is."""

    async def mend(self, connection: Connection) -> int:
        """Make the paths that are missing and whose other end answers now; how many. Never the first path."""
