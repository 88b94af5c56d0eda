"""What handlers work with: made once by the server and given to every job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.jobs.errors import BackendAway, NoConversion, NoDataPort, NoImageStore, UnknownBackend
from agent.targets.errors import NoTarget

if TYPE_CHECKING:
    from agent.backends.base import Backend, Trouble
    from agent.images.store import ImageStore
    from agent.jobs.conversion import Conversion
    from agent.jobs.journal import Journal
    from agent.jobs.sealing import Sealer
    from agent.targets.base import Target
    from agent.targets.dataport import DataPort
    from agent.wire.jobs import TransferRef


Send = Callable[["TransferRef", AsyncIterator[bytes], int, Callable[[int], None]], Awaitable[int]]
"""Send a stream of so many bytes to another host's data port; told how far it has come; returns its size."""


@dataclass(frozen=True, slots=True)
class Services:
    """`host` is this host's name; `images` is None where none are kept; `rate_limit` is bytes a second per copy."""

    host: str
    journal: Journal
    backends: Mapping[str, Backend] = field(default_factory=dict)
    away: Mapping[str, Trouble] = field(default_factory=dict)
    boot_id: str = ""
    rate_limit: int | None = None
    passphrase_iterations: int = 2_000_000
    conversion: Conversion | None = None
    images: ImageStore | None = None
    data_port: DataPort | None = None
    send: Send | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)
    sealer: Sealer | None = None

    def backend(self, name: str) -> Backend:
        """The back end of that name; UnknownBackend, BackendAway."""
        found = self.backends.get(name)
        if found is None and name in self.away:
            raise BackendAway(backend=name, reason=self.away[name].message)
        if found is None:
            raise UnknownBackend(
                noun="back end", id=name, backend=name, known=", ".join(sorted(self.backends)) or "none"
            )
        return found

    def image_store(self) -> ImageStore:
        """NoImageStore where none is configured."""
        if self.images is None:
            raise NoImageStore(noun="image store", id=self.host, host=self.host)
        return self.images

    def target(self, protocol: str) -> Target:
        """The target for a protocol; NoTarget."""
        found = self.targets.get(protocol)
        if found is None:
            known = ", ".join(sorted(self.targets)) or "none"
            raise NoTarget(noun="target", id=protocol, host=self.host, protocol=protocol, known=known)
        return found

    def sealing(self) -> Sealer:
        """What seals secrets under the host key."""
        assert self.sealer is not None
        return self.sealer

    def transfers(self) -> DataPort:
        """The data port; NoDataPort while it is not listening."""
        if self.data_port is None:
            raise NoDataPort(host=self.host)
        return self.data_port

    def sender(self) -> Send:
        """How bytes go to other hosts; NoDataPort where there is no way."""
        if self.send is None:
            raise NoDataPort(host=self.host)
        return self.send

    def conversion_means(self) -> Conversion:
        """What making volumes from images needs; NoConversion where there is no back end to make them on."""
        if self.conversion is None:
            raise NoConversion(host=self.host)
        return self.conversion
